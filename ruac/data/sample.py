"""One image with its object masks, and what every reader offers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image, UnidentifiedImageError

from ruac.errors import RuacError


@dataclass(frozen=True)
class Record:
    """What is known of an image before it is read.

    id: stable and unique within its data set. path: the image file. origin: the collection the
    image came from ("" where there is one only), used to balance training. object_ids: stable
    ids, unique within the image, in the order of the masks.
    """

    id: str
    path: Path
    object_ids: tuple[str, ...]
    origin: str = ""


@dataclass(frozen=True)
class Sample:
    """image: ``uint8 [H, W, 3]`` RGB. masks: ``bool [K, H, W]``, may overlap, none of them empty."""

    record: Record
    image: np.ndarray
    masks: np.ndarray


@runtime_checkable
class MaskDataset(Protocol):
    """A sequence of samples whose records are known without reading any image."""

    name: str
    records: list[Record]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def read_image(path: Path) -> np.ndarray:
    """Read an image file as ``uint8 [H, W, 3]`` RGB. Raises `RuacError` if missing, truncated or no image."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise RuacError(f"{path}: image file not found") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RuacError(f"{path}: cannot be read as an image: {error}") from error
