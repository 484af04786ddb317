"""The end of a sweep of many models: the sums of a domain read, added up, written and computed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.results.schema import REGIONS, ROW
from ruac.evaluation.sweep.chunks import Chunk, chunk_path, save_chunk
from ruac.evaluation.sweep.merge import merge_chunks, open_rows
from ruac.evaluation.sweep.results import domain_rows, save_sums
from ruac.studies.benchmark.rows import Row, fastest

MODELS, DOMAINS, MOST = 50, 24, 60.0  # seconds for all of them
PIXELS, OBJECTS = 1 << 18, 20
KEY = "benchmark"


def run(*, models: int, repeats: int) -> list[Row]:
    """A domain of one chunk, with the sums of `models`. Ratio: of what 50 models on 24 domains would take to one
    minute."""
    with tempfile.TemporaryDirectory() as folder:
        path = make_chunk(Path(folder), models)
        seconds = fastest({"": lambda: _merge(Path(folder), path)}, repeats=repeats)[""]
    share = MODELS * DOMAINS / models
    note = f"{MODELS} models, {DOMAINS} domains: {share * seconds:.0f} s"
    return [Row(f"merge: a domain of {models} models", seconds, share * seconds / MOST, "<= 1.0", note)]


def make_chunk(folder: Path, models: int) -> Path:
    """One image of `OBJECTS` objects; probabilities and labels are drawn, each label as likely as its pixel says."""
    generator = torch.Generator().manual_seed(0)
    p = torch.sigmoid(4 * torch.randn(PIXELS, generator=generator))
    truth = torch.rand(PIXELS, generator=generator) < p
    sums, rows = {}, []
    one = ReliabilitySums()
    one.update(probability=p, uncertainty=1 - (2 * p - 1).abs(), target=truth, prediction=p > 0.5)
    blank = {name: None for name in ROW.names}
    for m in range(models):
        for region in REGIONS:
            sums[f"model{m}", "entropy", region] = one
        for n in range(OBJECTS):
            named = {"domain": "d", "image": "i", "object": str(n), "model": f"model{m}"}
            rows.append(blank | named | {"j": 0.5, "f": 0.5, "band_error": 0.1, "band_uncertainty": 0.2})
    path = chunk_path(folder, "d", "i")
    save_chunk(path, Chunk(["i"], [pa.RecordBatch.from_pylist(rows, schema=ROW)], sums), KEY)
    return path


def _merge(folder: Path, path: Path) -> list[dict]:
    with open_rows(folder / "objects.parquet") as writer:
        rows, sums = merge_chunks({"i": path}, ["i"], KEY, writer)
    save_sums(folder, "d", sums)
    table = domain_rows("d", rows, sums)
    assert all(np.isfinite(row["aurc"]) for row in table)
    return table
