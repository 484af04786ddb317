"""Images named by what they are: their own bytes, and what is asked of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from ruac.base.files import sha256
from ruac.data.sample import MaskDataset

T = TypeVar("T")
HALF = 32  # characters of the name of an image that say what is asked of it; the rest is its content


def image_names(dataset: MaskDataset, limit: int = 0) -> list[str]:
    """A name per image: half a SHA-256 of its id, object ids and annotation files, then half of one of its own file.

    So a picture that was edited is told apart from another annotation of it (`chunks.finished_images`). limit: the
    first. Nothing is decoded. A file that is missing has a part in the name as well, which changes when it is there.
    """
    content = cache(lambda path: _unless_missing(sha256, path))
    names = []
    for record in dataset.records[: limit or None]:
        asked = [record.id, record.object_ids, [content(path) for path in record.annotations]]
        halves = (hashlib.sha256(json.dumps(facts).encode()).hexdigest() for facts in (asked, content(record.path)))
        names.append("".join(half[:HALF] for half in halves))
    return names


def dataset_hash(dataset: MaskDataset) -> str:
    """SHA-256 over the names of all images, see `image_names`."""
    return hash_names(image_names(dataset))


def hash_names(names: list[str]) -> str:
    """SHA-256 over names of images, in their order."""
    return hashlib.sha256("".join(names).encode()).hexdigest()


def _unless_missing(read: Callable[[Path], T], path: Path) -> T | None:
    try:
        return read(path)
    except OSError:
        return None
