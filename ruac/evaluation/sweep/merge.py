"""The chunks of one domain together: their sums, and their rows in the order of its images.

Chunks hold images in the order that processes came to them. Rows are therefore put aside in a file, one record batch
per image, and read back image by image: a sort that holds a chunk and then a group, however long the domain is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ruac.base.errors import RuacError
from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.results.schema import BOUNDS, ROW
from ruac.evaluation.sweep.chunks import Names, load_chunk

GROUP = 1 << 11  # rows that are written at a time, or those of one image, if it has more
FEW = ["image", "object", "model", "j", "f", "band_error", "band_uncertainty", *BOUNDS]
"""Columns for a domain's numbers and panels."""


@contextmanager
def open_rows(path: Path) -> Iterator[pq.ParquetWriter]:
    """A file for the rows of all domains.

    Inside, Arrow takes memory from the system: its own allocator sets megabytes aside for every size that it once
    gave, as many as the rows of thousands of objects take.
    """
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        # Small pages: what is encoded but not yet written does not grow with the group.
        with pq.ParquetWriter(path, ROW, data_page_size=1 << 16, write_batch_size=128) as writer:
            yield writer
    finally:
        pa.set_memory_pool(before)


def merge_chunks(
    finished: Mapping[str, Path], order: Iterable[str], key: str, writer: pq.ParquetWriter
) -> tuple[pd.DataFrame, dict[Names, ReliabilitySums]]:
    """Write the rows of a domain to what `open_rows` gave; returns their columns `FEW`, and the domain's sums.

    finished: images and their chunks, as from `finished_images`; one or more. order: of the images, all of
    `finished`; rows of one image stay as they were evaluated. Raises `RuacError` as `load_chunk` does.
    """
    paths = sorted(set(finished.values()))
    sums: dict[Names, ReliabilitySums] = defaultdict(ReliabilitySums)
    place: dict[str, int] = {}  # of an image's batch in the file
    few = []
    with TemporaryDirectory(dir=paths[0].parent, prefix=".rows") as folder:
        aside = str(Path(folder) / "rows.arrow")
        with pa.ipc.new_file(aside, ROW) as batches:
            for path in paths:
                chunk = load_chunk(path, key)
                for image, rows in zip(chunk.images, chunk.rows, strict=True):
                    if rows.schema.names != ROW.names:
                        raise RuacError(f"{path}: chunk of a sweep of another version; delete it to redo its images")
                    place[image] = len(place)
                    batches.write_batch(rows)
                for names, own in chunk.sums.items():
                    sums[names].merge(own)
        with pa.OSFile(aside) as file, pa.ipc.open_file(file) as reader:
            for rows in _groups(reader.get_batch(place[image]) for image in order):
                writer.write_table(rows)
                few.append(rows.select(FEW).take(np.arange(len(rows))))  # a copy: the other columns are let go
    return pa.concat_tables(few).to_pandas(), dict(sums)


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held, count = [], 0
    for batch in batches:
        held.append(batch)
        count += len(batch)
        if count >= GROUP:
            yield pa.Table.from_batches(held)
            held, count = [], 0
    if held:
        yield pa.Table.from_batches(held)
