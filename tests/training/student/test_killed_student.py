"""A student whose training is killed at random moments and resumed ends as if nothing had happened."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from killing import KILLS, killed_at_random

from ruac.base.config import load_config
from ruac.base.files import sha256
from ruac.training.engine import LAST
from ruac.training.student.run import StudentConfig, train_student

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def train(out, settings):
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    more = ["method=unimatch_v2", "consistency.threshold=0.3", "engine.save_every=1", f"out={out}"]
    train_student(load_config(StudentConfig, None, [*settings, *more]), resume=(out / LAST).exists())


def result(out):
    """All of result.json but the folder's name and what was installed."""
    content = json.loads((out / "result.json").read_text())
    del content["environment"], content["config"]["out"]
    return content


@pytest.mark.slow
@pytest.mark.timeout(240 + 120 * KILLS)
def test_killed_at_random_moments(settings, tmp_path):
    whole = tmp_path / "whole"
    train(whole, settings)

    def check(out):
        ours, theirs = (torch.load(each / LAST, weights_only=True) for each in (out, whole))
        assert str(ours) == str(theirs)
        assert sha256(out / "student.safetensors") == sha256(whole / "student.safetensors")
        assert result(out) == result(whole)
        assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}

    killed_at_random(lambda out: train(out, settings), check, tmp_path / "parts", seed=3)
