"""Disks that are full or read-only: every writer says so, names the file and leaves the last good one."""

import os
import subprocess

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from ruac.base.errors import RuacError
from ruac.base.files import atomic_folder, held, write_text
from ruac.calibration.temperature import Temperature
from ruac.data.write import write_coco
from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.results.schema import ROW
from ruac.evaluation.sweep.chunks import Chunk, load_chunk, save_chunk
from ruac.inference.save import save_png
from ruac.training.engine import save_checkpoint


class OneLayer(nn.Module):
    """A task of 256 KB."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(256, 256)

    def trained_modules(self):
        return {"layer": self.layer}


def checkpoint(path):
    task = OneLayer()
    save_checkpoint(path, task, torch.optim.AdamW(task.parameters()), {"step": 1})


def chunk(path):
    rows = pa.RecordBatch.from_pylist([{"domain": "d", "image": "i", "object": "0", "model": "a"}], schema=ROW)
    sums = ReliabilitySums()
    for values in sums.to_arrays().values():
        values += np.random.default_rng(0).integers(0, 1 << 40, values.shape)
    save_chunk(path, Chunk(["n"], [rows], {("a", "total", "image"): sums}), "key")


def calibrator(path):
    one = Temperature()
    one.register_buffer("ballast", torch.randn(1 << 16))
    one.save(path)


WRITERS = {
    "text": lambda path: write_text(path, "x" * (1 << 18)),
    "picture": lambda path: save_png(path, np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)),
    "checkpoint": checkpoint,
    "chunk": chunk,
    "calibrator": calibrator,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk(small_disk, writer):
    path = small_disk / "file"
    path.write_bytes(b"last good")
    with pytest.raises(RuacError, match="disk/file: no free disk space, nothing was written"):
        WRITERS[writer](path)
    assert path.read_bytes() == b"last good"
    assert [each.name for each in small_disk.iterdir()] == ["file"]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_read_only_disk(small_disk, writer):
    path = small_disk / "file"
    path.write_bytes(b"last good")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RuacError, match="disk/file: cannot be written: Read-only file system"):
        WRITERS[writer](path)
    assert path.read_bytes() == b"last good"


def test_a_data_set_for_which_there_is_no_space(small_disk, coco_folder):
    from ruac.data.coco import CocoFolder

    data = CocoFolder(coco_folder)
    with pytest.raises(RuacError, match="disk/out: no free disk space"):
        write_coco((data[n % len(data)] for n in range(8)), small_disk / "out")
    assert not list(small_disk.iterdir())


def test_a_chunk_that_is_whole_is_read_again(tmp_path):
    chunk(tmp_path / "a.npz")
    assert load_chunk(tmp_path / "a.npz", "key").images == ["n"]


DEAD = (1 << 22) + 1  # no process has such a number


def test_a_folder_is_held_by_one_run_and_let_go(tmp_path):
    message = "out: another run is at work here"
    with held(tmp_path / "out"), pytest.raises(RuacError, match=message), held(tmp_path / "out", patience=0.2):
        pass
    with held(tmp_path / "out"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(RuacError, match="file: cannot be written"), held(tmp_path / "file"):
        pass


def test_what_dead_processes_were_writing_goes_and_all_else_stays(tmp_path):
    def leave(*processes):
        for process in processes:
            (tmp_path / "out" / "sub" / f".export.{process}.tmp").mkdir(parents=True)
            for place in ("", f"sub/.export.{process}.tmp/"):
                (tmp_path / "out" / f"{place}.last.pt.{process}.tmp").touch()

    stays = [".last.pt.1.tmp", "sub", "sub/.export.1.tmp", "sub/.export.1.tmp/.last.pt.1.tmp", "x.7.tmp"]
    leave(DEAD, 10**30, os.getpid(), 1)  # the last one lives
    (tmp_path / "out" / "x.7.tmp").touch()
    with held(tmp_path / "out"):
        assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.rglob("out/**/*")) == stays
    leave(DEAD)
    with atomic_folder(tmp_path / "out" / "sub" / "export", last="a") as folder:
        (folder / "a").touch()
    assert sorted(path.name for path in (tmp_path / "out" / "sub").iterdir()) == [".export.1.tmp", "export"]
