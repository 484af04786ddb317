"""One image with its object masks, and what every reader offers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image, UnidentifiedImageError

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


def read_image(path: Path) -> np.ndarray:
    """Read an image file as ``uint8 [H, W, 3]`` RGB. Raises `RuacError` if missing, truncated or no image.

    16-bit grey values keep their upper 8 bits.
    """
    with opened(path) as image:
        if image.mode == "F":
            raise RuacError(f"{path}: has floating-point pixels, expected 8 or 16 bit")
        if image.mode.startswith("I"):  # Pillow would cut 16 bit off at 255
            grey = np.clip(np.asarray(image).astype(np.int64) // 257, 0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.asarray(image.convert("RGB"))


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file and decode it inside; whatever goes wrong becomes a `RuacError` that names the file."""
    try:
        with Image.open(path) as image:
            image.load()
            yield image
    except FileNotFoundError:
        raise RuacError(f"{path}: image file not found") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RuacError(f"{path}: cannot be read as an image: {error}") from error


def read_list(path: Path) -> list[str]:
    """The lines of a split file, without blank ones. Raises `RuacError` if it is missing or names nothing."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise RuacError(f"{path}: split list not found; expected a text file with one name per line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RuacError(f"{path}: split list cannot be read: {error}") from error
    lines = [line for line in lines if line]
    if not lines:
        raise RuacError(f"{path}: the split list is empty; expected one name per line")
    return lines
