"""What a second process adds to a sweep."""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing import get_context
from typing import Any

import torch

from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Scores, evaluate_image
from ruac.studies.benchmark.cases import Case
from ruac.studies.benchmark.rows import Least, Row

LEAST = 1.8
WAIT = 600.0  # seconds, in which every process has to be there


def run(*, cases: Sequence[Case], pictures: int, repeats: int) -> list[Row]:
    """Pictures a second of two processes with one thread each that sweep at the same time, to those of one.

    Ratio: from CPU seconds, which other work on the machine does not change as it changes the clock; what two processes
    take from each other, caches and memory, is in them. By the clock: in the note.
    """
    rows = []
    for case in cases:
        cpu: dict[int, list[float]] = {1: [], 2: []}
        clock: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(repeats):
            for count in (1, 2):
                measured = _together(case, pictures, count)
                cpu[count].append(sum(m[0] for m in measured) / count)
                clock[count].append(max(m[1] for m in measured))
        one, two = Least(cpu[1]), Least(cpu[2])
        note = f"by the clock {2 * min(clock[1]) / min(clock[2]):.2f}"
        rows.append(Row(f"{case}: {pictures} pictures, 1 process", one, 1.0))
        rows.append(Row(f"{case}: {pictures} pictures each, 2 processes", two, 2 * one / two, f">= {LEAST}", note))
    return rows


def _together(case: Case, pictures: int, count: int) -> list[tuple[float, float]]:
    context = get_context("spawn")
    barrier, queue = context.Barrier(count), context.Queue()
    processes = [context.Process(target=_sweep, args=(case, pictures, barrier, queue)) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        return [queue.get(timeout=WAIT) for _ in processes]
    finally:
        for process in processes:
            process.join()


def _sweep(case: Case, pictures: int, barrier: Any, queue: Any) -> None:
    torch.set_num_threads(1)
    model, sample = case.model(), case.sample()

    def once() -> None:
        evaluate_image({"ruac": model}, sample, ProtocolConfig(), Scores(), domain="benchmark")

    once()  # compiled, and its memory at hand
    barrier.wait(WAIT)
    clock, cpu = time.monotonic(), time.process_time()
    for _ in range(pictures):
        once()
    queue.put((time.process_time() - cpu, time.monotonic() - clock))
