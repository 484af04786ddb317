"""What is to be done and who does it: images named by their content, ordered by cost, claimed one at a time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from ruac.base.errors import RuacError
from ruac.base.files import sha256
from ruac.data.sample import MaskDataset, Record, image_size
from ruac.evaluation.sweep.chunks import HALF, finished_images

T = TypeVar("T")


class Job(NamedTuple):
    """One image of a domain. position: in the data set. image: its name, see `image_names`."""

    domain: str
    position: int
    image: str


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


def cost(record: Record) -> int:
    """Of scoring an image: pixels times objects; 0 if its header cannot be read, which its evaluation will report."""
    try:
        height, width = image_size(record.path)
    except RuacError:
        return 0
    return height * width * len(record.object_ids)


def jobs_left(out: Path, domains: Mapping[str, MaskDataset], names: Mapping[str, list[str]], key: str) -> list[Job]:
    """The images that no chunk holds: domain by domain, the most costly image of each first.

    Whoever is free takes the next one, so that processes wait for each other no longer than one image of the last
    domain takes. Raises `RuacError` for chunks that cannot be continued.
    """
    jobs = []
    for domain, dataset in domains.items():
        done = finished_images(out, domain, key, names[domain])
        left = [Job(domain, i, image) for i, image in enumerate(names[domain]) if image not in done]
        jobs += sorted(left, key=lambda job: -cost(dataset.records[job.position]))
    return jobs


class Claims:
    """Iterates over the numbers below `total`; each is given to one process only, at the moment it asks.

    Nothing of it is on disk, so a killed sweep leaves no claim behind. The main process keeps the counter: its
    object has to live until all processes are through.
    """

    def __init__(self, total: int):
        self.total, self._state, self._store = total, PartialState(), None
        if self._state.num_processes > 1:
            host, main = os.environ["MASTER_ADDR"], self._state.is_main_process
            if main:
                self._store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)
            port = shared(lambda: self._store.port)
            if not main:
                self._store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False)

    def __iter__(self) -> Iterator[int]:
        if self._store is None:
            yield from range(self.total)
        else:
            while (number := self._store.add("claimed", 1) - 1) < self.total:
                yield number


def shared(compute: Callable[[], T]) -> T:
    """What `compute` returns in the main process, in every process."""
    box = [compute() if PartialState().is_main_process else None]
    return broadcast_object_list(box)[0]


@contextmanager
def finishing_on_signal() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM do not interrupt the body; it is given a function that tells whether one came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield lambda: False
        return
    before = {s: signal.signal(s, lambda number, _: came.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unless_missing(read: Callable[[Path], T], path: Path) -> T | None:
    try:
        return read(path)
    except OSError:
        return None
