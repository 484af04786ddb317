"""A calibration that is killed at random moments and started again ends as if nothing had happened."""

from dataclasses import replace
from pathlib import Path

import pytest
from killing import KILLS, killed_at_random

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
    run_calibrate(whole)
    calibrator = read_calibrator(Path(whole.out) / CALIBRATOR)
    answers = contents(Path(whole.cache))

    def run(out):
        run_calibrate(replace(whole, out=str(out), cache=str(out / "answers")))

    def check(out):
        header, tensors = read_calibrator(out / CALIBRATOR)
        assert header == calibrator[0]  # safetensors writes it in any order
        assert {name: x.tolist() for name, x in tensors.items()} == {n: x.tolist() for n, x in calibrator[1].items()}
        assert contents(out / "answers") == answers

    killed_at_random(run, check, tmp_path / "parts", seed=2)


def contents(cache):
    """Hashes of all answers by name, and the names of other files; what was being written is no answer."""
    paths = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".tmp"]
    return {p.relative_to(cache).as_posix(): sha256(p) if p.suffix == ".safetensors" else None for p in paths}


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
