"""Fuzzing that follows the branches taken, where atheris is installed; ``RUAC_FUZZ`` says how many cases."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="coverage-guided fuzzing needs atheris, which has wheels for few Pythons")
CASES = int(os.environ.get("RUAC_FUZZ", "300"))
SEED = "1" if "RUAC_FUZZ" not in os.environ else "0"  # 0: another one every time


@pytest.mark.slow
@pytest.mark.parametrize("target", ["pictures", "chunks", "calibrators"])
def test_fuzz_guided(target, tmp_path):
    tests = Path(__file__).parent
    command = [sys.executable, str(tests / "guided.py"), target, str(tmp_path), f"-runs={CASES}", f"-seed={SEED}"]
    paths = os.pathsep.join([str(tests.parent), str(tests), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert f"Done {CASES} runs" in done.stderr, done.stderr[-3000:]
