"""Resident memory of a sweep's scores by the number of objects."""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from ruac.benchmark.cases import Case
from ruac.benchmark.rows import Row
from ruac.metrics import ReliabilitySums, boundary_f, jaccard, object_band, update_sums
from ruac.sweep.evaluate import Scores, evaluate_image
from ruac.sweep.protocol import ProtocolConfig

FLAT = "<= 1.05"
SIDE, OBJECTS = 64, 10

_Point = tuple[int, float, int]  # objects so far, CPU seconds, peak bytes


def run(*, counts: list[int]) -> list[Row]:
    """Objects of 64 px, first scored, then held as the rows that a sweep keeps of each; each in a process of its
    own. Ratio: of the peak so far to that after the first of `counts`, which are ascending multiples of it."""
    rows = []
    for name, work in (("metrics", _score), ("rows of objects, held", _hold)):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            points = pool.submit(_collect, work, counts).result()
        first = points[0]
        for count, seconds, peak in points:
            note = f"{peak / 2**20:.0f} MiB"
            if count > first[0]:
                note += f", {(peak - first[2]) / (count - first[0]):.0f} bytes per object"
            rows.append(Row(f"{name}: {count} objects", seconds, peak / first[2], FLAT, note))
    return rows


def _collect(work: Callable[[list[int]], Iterator[int]], counts: list[int]) -> list[_Point]:
    torch.set_num_threads(1)
    return [(count, time.process_time(), peak_memory()) for count in work(counts)]


def peak_memory() -> int:
    """Most resident bytes of this process so far. Linux hands ru_maxrss down to whatever a process starts, so there
    the kernel's own record of the program is read."""
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _score(counts: list[int]) -> Iterator[int]:
    """Score as many objects at a time as the first count says, and keep nothing but the sums."""
    truth = np.resize(Case(side=SIDE, objects=OBJECTS).sample().masks, (counts[0], SIDE, SIDE))  # repeated
    prediction = np.roll(truth, 2, axis=2)
    sums = {("total", region): ReliabilitySums() for region in ("image", "band")}
    done = 0
    for count in counts:
        while done < count:
            jaccard(prediction, truth)
            boundary_f(prediction, truth)
            update_sums(
                sums,
                probability=torch.rand(truth.shape),
                uncertainty={"total": torch.rand(truth.shape)},
                target=truth,
                prediction=prediction,
                regions={"image": None, "band": object_band(truth)},
            )
            done += len(truth)
        yield count


def _hold(counts: list[int]) -> Iterator[int]:
    """Hold copies of the rows of a real picture, as a sweep has them of a whole domain."""
    case, scores = Case("nano", SIDE, OBJECTS), Scores()
    evaluate_image({"ruac": case.model()}, case.sample(), ProtocolConfig(), scores, domain="benchmark")
    text, held = json.dumps(scores.rows), []
    for count in counts:
        while len(held) < count:
            held += json.loads(text)  # as from a chunk
        yield count
