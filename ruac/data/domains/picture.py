"""A picture of a native data set before anything is read: its place and where its objects are written."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from ruac.data.sample import IMAGE_SUFFIXES


class Annotation(Protocol):
    """The objects of one picture in a shared format; both methods read the files again, nothing is kept."""

    @property
    def files(self) -> tuple[Path, ...]: ...

    def drawn_on(self) -> tuple[int, int] | None:
        """(H, W) of the picture that was annotated, None where the files do not say."""
        ...

    def object_ids(self, image: Path, orientation: str = "seen") -> tuple[list[str], int]:
        """Ids of the objects that have a pixel, in a fixed order, and the number of those that have none.

        orientation: of the picture, where nothing says its size."""
        ...

    def masks(self, ids: tuple[str, ...], size: tuple[int, int]) -> np.ndarray:
        """``bool [K, H, W]`` of the objects `ids`; `size` is the picture's (H, W)."""
        ...


@dataclass(frozen=True)
class Picture:
    """id: ``split/path.png`` with the path below the split's image folder; it depends neither on the machine
    nor on the order of files, and is the file name in the converted folder."""

    id: str
    path: Path
    annotation: Annotation


def picture_id(split: str, relative: str | Path) -> str:
    """``train``, ``a/b.JPG`` -> ``train/a/b.png``; accents are composed as on every system (Unicode NFC)."""
    path = PurePosixPath(Path(relative).as_posix())
    path = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
    return unicodedata.normalize("NFC", f"{split}/{path}.png")
