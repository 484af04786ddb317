"""Finding the files of a download: folders that archives nest differently, pairs of images and masks."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ruac.base.errors import RuacError
from ruac.data.sample import IMAGE_SUFFIXES, check_inside

DEPTH = 3  # folders that archives and download pages put around a data set


class NotThere(RuacError):
    """A download is not where it was looked for; it may lie around the folder that was named."""


def locate(root: Path, relative: str) -> Path:
    """The place `relative` in `root`, in a folder around it that the user named, or in up to `DEPTH` folders inside.

    Raises `NotThere` that says what was expected and what lies there, `RuacError` where there are two.
    """
    if root.name == relative.partition("/")[0] and (root.parent / relative).exists():
        return root.parent / relative
    level = [root]
    for _ in range(DEPTH):
        found = [folder / relative for folder in level if (folder / relative).exists()]
        if len(found) > 1:
            raise RuacError(f"{root}: {relative} exists in {found[0].parent} and {found[1].parent}; name one of them")
        if found:
            return found[0]
        level = [inner for folder in level for inner in folders_in(folder)]
    inside = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
    raise NotThere(
        f"{root}: {relative} not found; expected it there or up to {DEPTH - 1} folders inside; found {inside}"
    )


def pair(masks: Path, images: Path, *, mask_end: str = ".png", image_end: str = "") -> Iterator[tuple[str, Path, Path]]:
    """``(key, mask, image)`` for every file below `masks` that ends with `mask_end`, in order.

    The key is the path without the ending; the image has the same key below `images`, and ends with
    `image_end` or, if that is "", with any image suffix or none. Raises `RuacError` for a mask without
    an image and for a folder without masks.
    """
    pictures = {}
    for path in files_in(images):
        key = _key(path, images)
        if image_end and key.lower().endswith(image_end.lower()):
            pictures[key[: -len(image_end)]] = path
        elif not image_end and (path.suffix.lower() in IMAGE_SUFFIXES or not path.suffix):
            pictures.setdefault(key.removesuffix(path.suffix), path)
    found = files_in(masks, mask_end)
    if not found:
        raise NotThere(f"{masks}: no file that ends with {mask_end}")
    for mask in found:
        key = _key(mask, masks)[: -len(mask_end)]
        if key not in pictures:
            raise RuacError(f"{mask}: mask without an image; expected {images / key}{image_end or '.jpg or .png'}")
        yield key, mask, pictures[key]


def image_in(folder: Path, name: str, where: str) -> Path:
    """The image `name` in `folder`, however its accents are encoded. Raises `RuacError` if it is missing or outside."""
    check_inside(name, where)
    for form in (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)):
        with suppress(OSError):  # a name may be longer than a system allows
            if (folder / form).is_file():
                return folder / form
    raise RuacError(f"{folder / name}: image not found; {where} names it")


def files_in(folder: Path, end: str = "") -> list[Path]:
    """The files below whose names end with `end` in either case, but those that systems hide (Finder's ``._name``)."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(end.lower()) and not path.name.startswith(".") and path.is_file()
    )


def folders_in(folder: Path) -> list[Path]:
    """The folders directly inside, but those that systems add (``__MACOSX`` repeats a whole archive)."""
    return sorted(
        Path(entry.path)
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))
    )


def _key(path: Path, folder: Path) -> str:
    return unicodedata.normalize("NFC", path.relative_to(folder).as_posix())
