"""Chunks of a domain put together: rows in the order of images, whoever did them, and sums of all."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from ruac.base.errors import RuacError
from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.results.schema import BOUNDS, ROW
from ruac.evaluation.sweep import merge
from ruac.evaluation.sweep.chunks import Chunk, ChunkWriter, chunk_path, load_chunk, save_chunk
from ruac.evaluation.sweep.merge import merge_chunks, open_rows

KEY = "key"
PLACE = ["image", "object", "model"]


def rows_of(image, objects=2):
    rng = np.random.default_rng(image)
    place = [{"image": f"i{image}", "object": str(k), "model": m} for k in range(objects) for m in ("a", "b")]
    numbers = {
        name: rng.random()
        for name in ("j", "f", "predicted_iou", "reliability", "band_error", "band_uncertainty", *BOUNDS)
    }
    lists = {"j_by_click": [0.25, 0.5], "band_counts": list(range(image)), "points": [1.5, 2.5], "labels": [1]}
    return [{"domain": "d", "area": image, "clicks": 2} | one | numbers | lists for one in place]


def sums_of(seed):
    pixels = torch.rand((1, 16, 16), generator=torch.Generator().manual_seed(seed))
    sums = ReliabilitySums()
    sums.update(probability=pixels, uncertainty=pixels.flip(2), target=pixels > 0.4, prediction=pixels > 0.5)
    return sums


def write(folder, images):
    batches = [pa.RecordBatch.from_pylist(rows_of(image), schema=ROW) for image in images]
    path = chunk_path(folder, "d", f"c{images[0]}")
    save_chunk(path, Chunk([f"n{i}" for i in images], batches, {("a", "total", "image"): sums_of(images[0])}), KEY)
    return dict.fromkeys((f"n{i}" for i in images), path)


@pytest.mark.parametrize("group", [1, 5, 100])
@pytest.mark.parametrize("spread", [[[3, 0, 4, 1, 2]], [[4, 0], [2], [1, 3]]])
def test_rows_come_in_the_order_of_images(tmp_path, monkeypatch, group, spread):
    monkeypatch.setattr(merge, "GROUP", group)
    finished = {name: path for images in spread for name, path in write(tmp_path, images).items()}
    allocator = pa.default_memory_pool().backend_name
    with open_rows(tmp_path / "objects.parquet") as writer:
        few, sums = merge_chunks(finished, [f"n{i}" for i in range(5)], KEY, writer)
    assert pa.default_memory_pool().backend_name == allocator

    written = pd.read_parquet(tmp_path / "objects.parquet")
    expected = pd.DataFrame([row for image in range(5) for row in rows_of(image)])
    assert written[PLACE].to_numpy().tolist() == expected[PLACE].to_numpy().tolist()
    assert [list(counts) for counts in written.band_counts] == list(expected.band_counts)
    assert [list(points) for points in written.points] == list(expected.points)
    for name in ("j", "f", "predicted_iou", "area", "band_error"):
        assert written[name].tolist() == expected[name].tolist()
    for name in few:
        assert few[name].tolist() == written[name].tolist()

    whole = ReliabilitySums()
    for images in spread:
        whole.merge(sums_of(images[0]))
    for part, values in whole.to_arrays().items():
        assert np.array_equal(sums["a", "total", "image"].to_arrays()[part], values)
    assert sorted(p.suffix for p in (tmp_path / "chunks" / "d").iterdir()) == [".npz"] * len(spread)


def test_a_chunk_comes_back_as_it_was_written(tmp_path):
    writer = ChunkWriter(tmp_path, KEY)
    for image in (1, 2):
        writer.open("d", f"n{image}")
        writer.scores.rows += rows_of(image)
        writer.scores.sums["a", "total", "image"].merge(sums_of(image))
        writer.add(f"n{image}")
    writer.save()
    (path,) = (tmp_path / "chunks" / "d").iterdir()
    chunk = load_chunk(path, KEY)
    assert chunk.images == ["n1", "n2"]
    assert [rows.to_pylist() for rows in chunk.rows] == [rows_of(1), rows_of(2)]
    assert chunk.sums["a", "total", "image"].count == 2 * 16 * 16


def test_rows_of_another_version_are_refused(tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, key=np.array(KEY), images=np.array("[]"), rows=np.array("[]"))
    with pytest.raises(RuacError, match=r"c.npz: unreadable chunk .* delete it to redo its images"):
        load_chunk(path, KEY)


def test_only_the_columns_that_are_looked_at_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "GROUP", 1)  # each image a group of its own, which nothing has to put together
    rows = pa.RecordBatch.from_pylist(rows_of(100, objects=500), schema=ROW)
    images = [f"n{i}" for i in range(10)]
    path = chunk_path(tmp_path, "d", "c")
    save_chunk(path, Chunk(images, [rows] * 10, {}), KEY)
    with open_rows(tmp_path / "objects.parquet") as writer:
        before = pa.total_allocated_bytes()
        few, _ = merge_chunks(dict.fromkeys(images, path), images, KEY, writer)
        held = pa.total_allocated_bytes() - before
    assert len(few) == 10 * rows.num_rows
    assert 0 < held < 0.25 * 10 * rows.nbytes
