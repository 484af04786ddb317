"""What is to be done and who does it: images ordered by their cost, claimed one at a time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from ruac.base.errors import RuacError
from ruac.data.sample import Record, image_size
from ruac.evaluation.sweep.chunks import finished_images, remove_edited
from ruac.evaluation.sweep.opened import Sweep

T = TypeVar("T")


class Job(NamedTuple):
    """One image of a domain. position: in the data set. image: its name, see `identity.image_names`."""

    domain: str
    position: int
    image: str


def cost(record: Record) -> int:
    """Of scoring an image: pixels times objects; 0 if its header cannot be read, which its evaluation will report."""
    try:
        height, width = image_size(record.path)
    except RuacError:
        return 0
    return height * width * len(record.object_ids)


def drop_edited(sweep: Sweep) -> None:
    """Remove the chunks that hold a picture edited since, so that all their images are redone."""
    for domain, names in sweep.names.items():
        remove_edited(sweep.out, domain, sweep.key, names)


def jobs_left(sweep: Sweep) -> list[Job]:
    """The images that no chunk holds: domain by domain, the most costly image of each first.

    Whoever is free takes the next one, so that processes wait for each other no longer than one image of the last
    domain takes. Raises `RuacError` for chunks that cannot be continued.
    """
    jobs = []
    for domain, dataset in sweep.domains.items():
        done = finished_images(sweep.out, domain, sweep.key, sweep.names[domain])
        left = [Job(domain, i, image) for i, image in enumerate(sweep.names[domain]) if image not in done]
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
