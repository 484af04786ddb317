"""What a sweep would take, from two images of each domain; nothing is written."""

from __future__ import annotations

import io
import time
import zlib

import numpy as np
import pandas as pd
import pyarrow as pa
from accelerate import PartialState

from ruac.base.arrays import save_arrays
from ruac.base.errors import RuacError
from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.results.schema import CASES, ROW
from ruac.evaluation.score import Scores, evaluate_image
from ruac.evaluation.sweep.claims import Job, jobs_left, shared
from ruac.evaluation.sweep.config import SweepConfig
from ruac.evaluation.sweep.opened import Sweep, open_sweep

FILLED = 2  # sums of a whole domain take about twice the space of those of two images
PLACES = (0.25, 0.75)  # of the images that are timed, among those left in the order of their cost


def estimate(config: SweepConfig) -> str:
    """A table for a person: images and objects of each domain, images left to do with their time, and disk space.

    Time is the mean of two images, read and evaluated here, times the number left, over the number of processes; disk
    the compressed size of their sums and rows, scaled. Images that cannot be read are named. Raises `RuacError` for
    unusable models or domains, or chunks that cannot be continued.
    """
    sweep = open_sweep(config)
    jobs = shared(lambda: jobs_left(sweep))
    unreadable: list[str] = []
    if jobs:
        _measure(sweep, jobs[0], unreadable)  # the first pass of a model is slower than all others
    table = []
    for domain, dataset in sweep.domains.items():
        left = [job for job in jobs if job.domain == domain]
        timed = dict.fromkeys(left[int(place * len(left))] for place in PLACES) if left else {}
        measured = [found for job in timed if (found := _measure(sweep, job, unreadable)) is not None]
        unknown = np.nan if left else 0.0
        seconds, disk = np.mean(measured, axis=0) if measured else (unknown, unknown)
        records = dataset.records[: config.limit or None]
        objects = sum(len(record.object_ids) for record in records)
        table.append(
            {"domain": domain, "images": len(records), "objects": objects, "left": len(left)}
            | {"seconds": seconds * len(left) / PartialState().num_processes, "disk": disk}
        )
    frame = pd.DataFrame(table)
    frame.loc[len(frame)] = {"domain": "all"} | frame.drop(columns="domain").sum().to_dict()
    frame["time"], frame["space"] = frame.pop("seconds").map(_duration), frame.pop("disk").map(_size)
    lines = [frame.astype({"images": int, "objects": int, "left": int}).to_string(index=False)]
    return "\n".join(lines + [f"cannot be read: {error}" for error in dict.fromkeys(unreadable)])


def _measure(sweep: Sweep, job: Job, unreadable: list[str]) -> tuple[float, float] | None:
    """Seconds of one image, and the bytes that its domain would take on disk."""
    scores, dataset, config = Scores(), sweep.domains[job.domain], sweep.config
    begin = time.perf_counter()
    try:
        sample = dataset[job.position]
    except RuacError as error:
        unreadable.append(str(error))
        return None
    replay = None if sweep.clicks is None else sweep.clicks(job.domain, sample.record)
    evaluate_image(sweep.models, sample, config.protocol, scores, domain=job.domain, replay=replay)
    seconds = time.perf_counter() - begin
    objects = sum(len(record.object_ids) for record in dataset.records[: config.limit or None])
    files = PartialState().num_processes + 1  # a chunk of each process, and the merged sums
    sums = FILLED * files * sum(map(_compressed, scores.sums.values()))
    rows = 2 * len(zlib.compress(pa.RecordBatch.from_pylist(scores.rows, schema=ROW).serialize())) * objects
    rows /= len(sample.masks)
    picture = sample.masks[0].size * (3 + len(sweep.models))
    return seconds, sums + rows + picture * len(CASES) * min(config.panels, objects)


def _compressed(sums: ReliabilitySums) -> int:
    stream = io.BytesIO()
    save_arrays(stream, sums.to_arrays())
    return stream.tell()


def _duration(seconds: float) -> str:
    if np.isnan(seconds):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _size(count: float) -> str:
    if np.isnan(count):
        return "?"
    return f"{count / 2**20:.0f} MB" if count < 2**30 else f"{count / 2**30:.1f} GB"
