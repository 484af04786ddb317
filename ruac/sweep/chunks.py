"""Finished work of a sweep on disk: one file per chunk of images, whole or absent.

A chunk is named by its place in the data set, not by the process that did it, so a restarted sweep
(with any number of processes) skips what is there and counts nothing twice; merging has no order.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ruac.errors import RuacError
from ruac.files import atomic_path
from ruac.metrics import ReliabilitySums
from ruac.sweep.evaluate import Scores


def chunk_path(folder: Path, domain: str, index: int) -> Path:
    return folder / "chunks" / domain / f"{index:06d}.npz"


def save_chunk(path: Path, scores: Scores, key: str) -> None:
    """Write rows and sums of a chunk. key: identifies protocol, models and data."""
    arrays = {"rows": np.array(json.dumps(scores.rows)), "key": np.array(key)}
    for names, sums in scores.sums.items():
        arrays |= {"|".join((*names, part)): values for part, values in sums.to_arrays().items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_chunk(path: Path, key: str) -> Scores:
    """Read a chunk. Raises `RuacError` if it is broken or belongs to another sweep."""
    content = _read(path, key)
    rows = json.loads(str(content.pop("rows")))
    grouped: dict[tuple[str, str, str], dict[str, np.ndarray]] = {}
    for name, values in content.items():
        model, score, region, part = name.split("|")
        grouped.setdefault((model, score, region), {})[part] = values
    scores = Scores(rows=rows)
    scores.sums.update({names: ReliabilitySums.from_arrays(parts) for names, parts in grouped.items()})
    return scores


def is_finished(path: Path, key: str) -> bool:
    """Whether the chunk is there. Raises `RuacError` if it is broken or belongs to another sweep."""
    if not path.exists():
        return False
    _read(path, key, names=("key",))
    return True


def _read(path: Path, key: str, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a chunk without its key; `names`: only these."""
    try:
        with np.load(path) as arrays:
            content = {name: arrays[name] for name in names or arrays.files}
        found = str(content.pop("key"))
    except Exception as error:
        raise RuacError(f"{path}: unreadable chunk of a sweep ({error}); delete it to redo these images") from error
    if found != key:
        raise RuacError(f"{path}: made with another protocol, model or data; use another out=")
    return content


def merge(target: Scores, chunk: Scores) -> None:
    """Add a chunk's rows and sums to `target`."""
    target.rows.extend(chunk.rows)
    for names, sums in chunk.sums.items():
        target.sums[names].merge(sums)
