"""A calibration that is killed at random moments and started again ends as if nothing had happened."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from killing import KILLS, until_done

from ruac.base.errors import RuacError
from ruac.base.files import sha256
from ruac.calibration import load_calibrator
from ruac.calibration.calibrator import read_calibrator
from ruac.fitting.cache import CachedAnswers
from ruac.fitting.calibrate import run_calibrate
from ruac.inference.export import CALIBRATOR, load_exported


@pytest.mark.slow
@pytest.mark.timeout(240 + 120 * KILLS)
def test_killed_at_random_moments(config, tmp_path):
    whole = config(out=str(tmp_path / "whole"), cache=str(tmp_path / "whole_answers"))
    started = time.monotonic()
    run_calibrate(whole)
    seconds = time.monotonic() - started
    parts = replace(whole, out=str(tmp_path / "parts"), cache=str(tmp_path / "part_answers"))
    assert until_done(lambda: run_calibrate(parts), seconds, seed=2) >= 1
    ours, theirs = (read_calibrator(Path(each.out) / CALIBRATOR) for each in (parts, whole))
    assert ours[0] == theirs[0]  # of the file's header, which safetensors writes in any order
    assert {name: x.tolist() for name, x in ours[1].items()} == {name: x.tolist() for name, x in theirs[1].items()}
    names = [sorted(p.relative_to(c).as_posix() for p in Path(c).rglob("*")) for c in (whole.cache, parts.cache)]
    assert [name for name in names[1] if not name.endswith(".tmp")] == names[0]
    for name in names[0]:
        if name.endswith(".safetensors"):
            assert sha256(Path(parts.cache) / name) == sha256(Path(whole.cache) / name)


def test_answers_exports_and_calibrators_cut_at_any_page_are_refused(config, tmp_path):
    made = config(out=str(tmp_path / "out"))
    run_calibrate(made)
    index = next(Path(made.cache).rglob("index.json"))
    answers = CachedAnswers(index.parent)
    first = index.parent / "000000.safetensors"
    readers = {
        first: (lambda: answers[0], r"000000\.safetensors: cannot be read"),
        Path(made.out) / CALIBRATOR: (lambda: load_calibrator(Path(made.out) / CALIBRATOR), "cannot be read as a cal"),
        Path(made.out) / "model.safetensors": (
            lambda: load_exported(made.out),
            r"model\.safetensors: damaged or of another export",
        ),
        Path(made.out) / "config.json": (lambda: load_exported(made.out), "broken JSON"),
        index: (lambda: CachedAnswers(index.parent), "broken JSON"),
    }
    for path, (read, message) in readers.items():
        content = path.read_bytes()
        for length in sorted({*range(0, len(content), 4096), len(content) - 8}):
            path.write_bytes(content[:length])
            with pytest.raises(RuacError, match=message):
                read()
        path.write_bytes(content)
        read()
