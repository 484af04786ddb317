"""One image with its object masks, and what every reader offers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageOps

from ruac.base.errors import RuacError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Record:
    """What is known of an image before it is read.

    id: stable and unique within its data set. path: the image file. origin: the collection the
    image came from ("" where there is one only), used to balance training. object_ids: stable
    ids, unique within the image, in the order of the masks. annotations: the files that the masks
    are read from, which images may share; none for masks that are drawn.
    """

    id: str
    path: Path
    object_ids: tuple[str, ...]
    origin: str = ""
    annotations: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Sample:
    """image: ``uint8 [H, W, 3]`` RGB. masks: ``bool [K, H, W]``, may overlap, none of them empty."""

    record: Record
    image: np.ndarray
    masks: np.ndarray

    def __post_init__(self) -> None:
        # Run lengths are decoded column by column; distances and counts take half as long again on such a layout.
        object.__setattr__(self, "masks", np.ascontiguousarray(self.masks))


@runtime_checkable
class MaskDataset(Protocol):
    """A sequence of samples whose records are known without reading any image."""

    name: str
    records: list[Record]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


ORIENTATIONS = ("seen", "stored")
"""What annotations were made on: the picture as a person sees it, or its stored pixels, without EXIF orientation."""


def check_orientation(orientation: str) -> None:
    """Raise `RuacError` unless it is one of `ORIENTATIONS`."""
    if orientation not in ORIENTATIONS:
        raise RuacError(f"orientation: {orientation!r}, expected {' or '.join(ORIENTATIONS)}")


def read_image(path: Path, *, size: tuple[int, int] | None = None, orientation: str = "seen") -> np.ndarray:
    """Read an image file as a person sees it, ``uint8 [H, W, 3]`` RGB: its EXIF orientation is applied.

    size: (H, W) of what was annotated. Annotations may have been made on the stored pixels. Where their size fits those
    and not the turned picture, the picture is not turned; where it fits both, only the user can tell: orientation is
    one of `ORIENTATIONS`.
    Raises `RuacError` if the file is missing, truncated or no image; for pixels see `to_rgb`.
    """
    with opened(path) as image:
        turned = ImageOps.exif_transpose(image)
        fits = size is not None and turned.size[::-1] != tuple(size) and image.size[::-1] == tuple(size)
        return to_rgb(image if fits or orientation == "stored" else turned, path)


def to_rgb(image: Image.Image, where: Any) -> np.ndarray:
    """The pixels of a Pillow image as ``uint8 [H, W, 3]``; `where` begins what is said of them.

    Transparent pictures are laid on white, as viewers show them. Of 16-bit grey values the upper 8 bits are kept;
    where all of them fit into 8 or 12 bits, as microscopes and X-ray exports write them, the upper 8 of those, and a
    warning says so. Raises `RuacError` for floating-point pixels and for values beyond 16 bit.
    """
    if image.mode == "F":
        raise RuacError(f"{where}: has floating-point pixels, expected 8 or 16 bit")
    if image.mode.startswith("I"):  # Pillow would cut 16 bit off at 255
        return np.repeat(_eight_bit(np.asarray(image).astype(np.int64), where)[..., None], 3, axis=2)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            warnings.warn(f"{where}: is transparent in places; laid on white", stacklevel=2)
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _eight_bit(grey: np.ndarray, where: Any) -> np.ndarray:
    low, high = (int(grey.min()), int(grey.max())) if grey.size else (0, 0)
    if low < 0 or high > 65535:
        raise RuacError(f"{where}: has values from {low} to {high}, expected 8 or 16 bit")
    bits = next(bits for bits in (8, 12, 16) if high < 1 << bits)
    if high > 0 and bits < 16:
        warnings.warn(f"{where}: 16-bit pixels with values up to {high}; read as {bits} bit", stacklevel=3)
    return (grey * 255 // ((1 << bits) - 1)).astype(np.uint8)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file and decode it inside; whatever goes wrong becomes a `RuacError` that names the file.

    Decoders raise what they like (struct.error, KeyError, zlib.error ...): no list of types would be complete.
    """
    try:
        with Image.open(path) as image:
            image.load()
            yield image
    except RuacError:
        raise
    except FileNotFoundError:
        raise RuacError(f"{path}: image file not found") from None
    except Exception as error:
        raise RuacError(f"{path}: cannot be read as an image: {error or type(error).__name__}") from error


def read_list(path: Path) -> list[str]:
    """The lines of a split file, without blank ones. Raises `RuacError` if it is missing or names nothing."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise RuacError(f"{path}: split list not found; expected a text file with one name per line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RuacError(f"{path}: split list cannot be read: {error}") from error
    lines = [line for line in lines if line]
    if not lines:
        raise RuacError(f"{path}: the split list is empty; expected one name per line")
    return lines
