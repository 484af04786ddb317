"""The data sets of a sweep by name: prepared folders, native downloads, and corrupted versions of either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath

from ruac.base.errors import RuacError
from ruac.data.domains import CARDS, open_domain
from ruac.data.open import open_dataset, place_and_split
from ruac.data.sample import MaskDataset
from ruac.data.synthetic.corruptions import CorruptedDataset, parse_corruption


def open_domains(
    entries: list[str], *, splits: str = "ruac", seed: int = 0, orientation: str = "seen"
) -> dict[str, MaskDataset]:
    """Data sets by name, in the order given.

    An entry is ``FOLDER``, a data set for `open_dataset` or a folder of such, named as the folder is; or
    ``NAME:ROOT``, the native download of a data set in `CARDS`. Either may end in ``@SPLIT``, which then is part of
    the name. splits, seed: of native downloads, see `open_domain`. orientation: see `ORIENTATIONS`. Raises `RuacError`
    for an entry that is neither, a name that occurs twice, or one that cannot be the name of a file.
    """
    domains: dict[str, MaskDataset] = {}
    for entry in entries:
        place, split = place_and_split(entry)
        name, _, root = place.partition(":")
        if root and name in CARDS:
            opened = iter([_native(name, root, split, splits, seed, orientation)])
        else:
            opened = _prepared(place, split, orientation)
        for dataset in opened:
            if dataset.name in domains:
                raise RuacError(f"{entry}: another domain is named {dataset.name!r} already")
            domains[dataset.name] = dataset
    return domains


def corrupted(domains: Mapping[str, MaskDataset], corruptions: list[str]) -> dict[str, MaskDataset]:
    """Each domain under each of `corruptions` ("fog:3"), as ``DOMAIN+fog3``."""
    every = [CorruptedDataset(dataset, *parse_corruption(text)) for dataset in domains.values() for text in corruptions]
    return {dataset.name: dataset for dataset in every}


def check_name(name: str, what: str) -> None:
    """Names of models and domains become folders, files and, joined by '|', arrays of a chunk."""
    if not name or name[0] == "." or set(name) & set("|/"):
        raise RuacError(f"{what} {name!r}: expected a name without '|', '/' and a dot in front")


def prepared_folders(place: str) -> list[Path]:
    """The data sets of a folder: itself, or those in it. Raises `RuacError` where there is none."""
    given = Path(place)
    if not given.is_dir():
        known = f"; NAME:ROOT needs a name among {', '.join(CARDS)}" if ":" in place else ""
        raise RuacError(f"{given}: domain folder not found{known}")
    inside = sorted(p for p in given.iterdir() if p.is_dir() and (p / "annotations.json").is_file())
    return [given] if (given / "annotations.json").is_file() or not inside else inside


def _prepared(place: str, split: str | None, orientation: str) -> Iterator[MaskDataset]:
    for folder in prepared_folders(place):
        name = _with_split(folder.name, split)
        check_name(name, f"{folder}: domain")
        yield open_dataset(folder, split=split, name=name, orientation=orientation)


def _native(name: str, root: str, split: str | None, splits: str, seed: int, orientation: str) -> MaskDataset:
    dataset = open_domain(name, root, protocol=splits, split=split, seed=seed, orientation=orientation)
    dataset.name = _with_split(name, split)
    check_name(dataset.name, f"{root}: domain")
    return dataset


def _with_split(name: str, split: str | None) -> str:
    return f"{name}@{PurePath(split).name}" if split else name  # a split may be given as a path
