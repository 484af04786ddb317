"""Finished work of a sweep on disk: files that hold whole images, written by one process each and growing with it.

A chunk lists its images by what they are (`identity.image_names`), not by the process or the order that did them. So a
restarted sweep, with any number of processes, does what no chunk holds and counts nothing twice; and since sums are
integers and rows are put in order when they are merged, no number depends on how images are spread over chunks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ruac.base.arrays import load_arrays, save_arrays
from ruac.base.errors import RuacError, brief
from ruac.base.files import atomic_path
from ruac.data.identity import HALF
from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.results.schema import ROW
from ruac.evaluation.score import Scores

SAVE_SECONDS = 30.0  # between two saves of a chunk: what is lost at most when a process dies without a signal
SAVE_SHARE = 20  # of the time goes into saving at most one part in so many
OBJECTS = 2048  # in a chunk, beyond which another one is begun: what a process holds does not grow with its domain


_WAYS_ON = "use another out=, or delete {} to sweep it anew; finished results can be read (report, compare, table)"
Names = tuple[str, str, str]  # model, score, region


@dataclass(frozen=True)
class Chunk:
    """images: names of what it holds. rows: of each image, in that order. sums: of all images together."""

    images: list[str]
    rows: list[pa.RecordBatch]
    sums: dict[Names, ReliabilitySums]


class ChunkWriter:
    """The chunk that this process is at: the images it has done of one domain since it came to it, or the latest.

    key: see `save_chunk`. Images are evaluated into ``scores`` and then counted with `add`; `open` and `save` are for
    the loop around.
    """

    def __init__(self, folder: Path, key: str):
        self.folder, self.key = folder, key
        self.scores, self._chunk, self._domain, self._path = Scores(), Chunk([], [], {}), None, None

    def open(self, domain: str, image: str) -> None:
        """Go on with `domain`; saves and leaves the chunk of another one, or a full one. image: the one to come."""
        if domain != self._domain or self._objects() >= OBJECTS:
            self.save()
            self.scores, self._domain = Scores(), domain
            self._chunk = Chunk([], [], self.scores.sums)
            self._path = chunk_path(self.folder, domain, image[:16])
            self._due = time.monotonic() + SAVE_SECONDS

    def add(self, image: str) -> None:
        """The scores of `image` are complete; save if it is time."""
        self._chunk.images.append(image)
        self._chunk.rows.append(pa.RecordBatch.from_pylist(self.scores.rows, schema=ROW))
        self.scores.rows.clear()
        if time.monotonic() >= self._due:
            begin = time.monotonic()
            self.save()
            end = time.monotonic()
            self._due = end + max(SAVE_SECONDS, SAVE_SHARE * (end - begin))

    def save(self) -> None:
        """Write the chunk, in place of its smaller self."""
        if self._chunk.images:
            save_chunk(self._path, self._chunk, self.key)

    def _objects(self) -> int:
        """Their number: each has a row for every model."""
        models = {model for model, _, _ in self._chunk.sums}
        return sum(map(len, self._chunk.rows)) // max(1, len(models))


def chunk_path(folder: Path, domain: str, name: str) -> Path:
    """Where a chunk lies; a sweep calls it by its first image, which is in no other chunk."""
    return folder / "chunks" / domain / f"{name}.npz"


def save_chunk(path: Path, chunk: Chunk, key: str) -> None:
    """Write images, rows and sums of a chunk. key: identifies protocol and models."""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, chunk.rows[0].schema) as writer:
        for rows in chunk.rows:
            writer.write_batch(rows)
    arrays = {"rows": np.frombuffer(stream.getvalue(), np.uint8), "key": np.array(key)}
    arrays["images"] = np.array(json.dumps(chunk.images))
    for names, sums in chunk.sums.items():
        arrays |= {"|".join((*names, part)): values for part, values in sums.to_arrays().items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        save_arrays(file, arrays)


def load_chunk(path: Path, key: str) -> Chunk:
    """Read a chunk. Raises `RuacError` if it is broken or belongs to another sweep."""
    content = _read(path, key)
    try:
        images = _names(content.pop("images"))
        with pa.ipc.open_stream(content.pop("rows")) as reader:
            rows = list(reader)
        grouped: dict[Names, dict[str, np.ndarray]] = {}
        for name, values in content.items():
            model, score, region, part = name.split("|")
            grouped.setdefault((model, score, region), {})[part] = values
        if len(rows) != len(images):
            raise ValueError(f"rows of {len(rows)} images, expected {len(images)}")
        sums = {names: ReliabilitySums.from_arrays(parts) for names, parts in grouped.items()}
    except Exception as error:  # damaged, or of a version that wrote rows otherwise: Arrow has many kinds of errors
        raise _unreadable(path, error) from error
    return Chunk(images, rows, sums)


def is_finished(path: Path, key: str) -> bool:
    """Whether the chunk is there. Raises `RuacError` if it is broken or belongs to another sweep."""
    if not path.exists():
        return False
    _read(path, key, names=("key",))
    return True


def remove_edited(folder: Path, domain: str, key: str, wanted: Iterable[str]) -> None:
    """Remove the chunks of `domain` that hold a picture edited since, so that all their images are redone."""
    wanted = set(wanted)
    asked = {name[:HALF] for name in wanted}
    for path in (folder / "chunks" / domain).glob("*.npz"):
        if _edited(_images(path, key), wanted, asked):
            path.unlink()


def finished_images(folder: Path, domain: str, key: str, wanted: Iterable[str]) -> dict[str, Path]:
    """The images of `domain` that are done, each with its chunk. wanted: the names of all that are to be swept.

    A chunk that holds a picture edited since counts as not there; `remove_edited` removes it.
    Raises `RuacError` for a chunk that is broken, of another sweep, or holds an image that is not wanted or that
    another chunk holds too: its sums cannot be taken apart.
    """
    wanted, found = set(wanted), {}
    asked = {name[:HALF] for name in wanted}
    for path in sorted((folder / "chunks" / domain).glob("*.npz")):
        images = _images(path, key)
        if _edited(images, wanted, asked):
            continue
        for image in images:
            if image not in wanted:
                what = "was changed since, is beyond limit=, or was named by an older version"
                raise RuacError(f"{path}: holds an image that {what}; {_WAYS_ON.format(path.parent)}")
            if image in found:
                raise RuacError(f"{path}: holds an image that is also in {found[image].name}; delete one of the two")
            found[image] = path
    return found


def _read(path: Path, key: str, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a chunk without its key; `names`: only these."""
    try:
        content = load_arrays(path, names)
        found = str(content.pop("key"))
    except KeyError:  # whole, but of a version that wrote other arrays
        found = None
    except Exception as error:
        raise _unreadable(path, error) from error
    if found != key:
        raise RuacError(
            f"{path}: made with another protocol or model, or by an older version; {_WAYS_ON.format(path.parent)}"
        )
    return content


def _unreadable(path: Path, error: Exception) -> RuacError:
    return RuacError(f"{path}: unreadable chunk of a sweep ({brief(error)}); delete it to redo its images")


def _images(path: Path, key: str) -> list[str]:
    try:
        return _names(_read(path, key, names=("key", "images"))["images"])
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _names(array: np.ndarray) -> list[str]:
    names = json.loads(str(array))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("expected a list of images")
    return names


def _edited(images: list[str], wanted: set[str], asked: set[str]) -> bool:
    """Whether one of `images` is asked the same as an image of `wanted`, of other content."""
    return any(image not in wanted and image[:HALF] in asked for image in images)
