"""Resident memory of a sweep's scores by the number of objects."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from ruac.evaluation.metrics import ReliabilitySums, boundary_f, jaccard, object_band, update_sums
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.results.schema import ROW
from ruac.evaluation.score import Scores, evaluate_image
from ruac.evaluation.sweep import chunks
from ruac.evaluation.sweep.chunks import Chunk, ChunkWriter, chunk_path, save_chunk
from ruac.evaluation.sweep.merge import merge_chunks, open_rows
from ruac.studies.benchmark.cases import Case
from ruac.studies.benchmark.rows import Row

FLAT = "<= 1.05"
SIDE, OBJECTS = 64, 10

_Point = tuple[int, float, int]  # objects so far, CPU seconds, peak bytes


def run(*, counts: list[int]) -> list[Row]:
    """Objects of 64 px: scored, their rows kept while a domain is swept, and merged at its end; each in a process of
    its own. Ratio: of the peak so far to that after the first of `counts`, which are ascending multiples of it."""
    rows = []
    for name, work in (("metrics", _score), ("rows, swept", _sweep), ("rows, merged", _merge)):
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


def resident_memory() -> int:
    """Resident bytes of this process now, once what is free is handed back (glibc); elsewhere the most so far."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    status = Path("/proc/self/status")
    return 1024 * int(re.search(r"VmRSS:\s*(\d+)", status.read_text())[1]) if status.is_file() else peak_memory()


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


def _sweep(counts: list[int]) -> Iterator[int]:
    """Hand on the rows of a real picture again and again, as if each time of another image of one domain."""
    scores = _picture()
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        writer = ChunkWriter(Path(folder), "benchmark")
        for count in counts:
            while done < count:
                writer.open("benchmark", f"{done:016}")
                for names, sums in scores.sums.items():
                    writer.scores.sums[names].merge(sums)
                writer.scores.rows += scores.rows
                writer.add(f"{done:016}")
                done += OBJECTS
            writer.save()
            yield count


def _merge(counts: list[int]) -> Iterator[int]:
    """Merge as many objects, from chunks of at most the size that a sweep makes them, into a file."""
    scores, finished = _picture(), {}
    rows = pa.RecordBatch.from_pylist(scores.rows, schema=ROW)
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            images = [f"{number:064}" for number in range(count // OBJECTS)]
            new, size = images[len(finished) :], chunks.OBJECTS // OBJECTS
            for some in (new[start : start + size] for start in range(0, len(new), size)):
                path = chunk_path(Path(folder), "benchmark", some[0])
                save_chunk(path, Chunk(some, [rows] * len(some), scores.sums), "benchmark")
                finished |= dict.fromkeys(some, path)
            with open_rows(Path(folder) / "objects.parquet") as writer:
                merge_chunks(finished, reversed(images), "benchmark", writer)
            yield count


def _picture() -> Scores:
    case, scores = Case("nano", SIDE, OBJECTS), Scores()
    evaluate_image({"ruac": case.model()}, case.sample(), ProtocolConfig(), scores, domain="benchmark")
    return scores
