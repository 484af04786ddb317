"""Arrays in a file that `numpy.load` reads, written fast, and read as what may come from anyone."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ruac.base.errors import brief

LEVEL = 1  # of deflate: a seventh of the time of the usual 6, together with `narrowed`, for a tenth more space at most
MOST_BYTES = 1 << 34  # of a file's arrays: sums take a few megabytes for each model, score and region


def save_arrays(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """What `numpy.savez_compressed` does, with integers no wider than their values: who reads them widens them again.

    Counts are 64 bits wide so that no sum overflows, and most of those bits are 0.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, narrowed(np.asanyarray(values)), allow_pickle=False)


def load_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file; names: only these. No pickle is run, and nothing is unpacked beyond `MOST_BYTES`.

    Raises `FileNotFoundError`, `KeyError` for a name that is not in it, and `ValueError` for whatever else is wrong:
    of damaged files, numpy, zlib and zipfile say so in many kinds of errors.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            claimed = sum(part.file_size for part in arrays.zip.infolist())
            if claimed > MOST_BYTES:
                raise ValueError(f"{claimed} bytes unpacked, expected at most {MOST_BYTES}")
            return {name: arrays[name] for name in (arrays.files if names is None else names)}
    except (FileNotFoundError, KeyError):
        raise
    except Exception as error:
        raise ValueError(brief(error)) from error


def narrowed(values: np.ndarray) -> np.ndarray:
    """Integers of a narrower type that holds all of them, if there is one; anything else as it is."""
    if values.dtype.kind not in "iu" or not values.size:
        return values
    low, high = int(values.min()), int(values.max())
    narrow = np.min_scalar_type(high if low >= 0 else min(low, -high - 1))
    return values.astype(narrow) if narrow.itemsize < values.dtype.itemsize else values
