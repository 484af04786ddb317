"""The reader of looks: fitted on clean and stressed source pictures, exported, and acting in the answer."""

import json

import numpy as np
import pytest
import torch

from ruac.base.config import config_from
from ruac.base.errors import RuacError
from ruac.data.open import open_dataset
from ruac.data.synthetic.shifts import SHIFTS
from ruac.data.synthetic.stress import StressConfig, stress
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import answer_image
from ruac.fitting.look_reader import LookReaderFitConfig, draw_look_pixels, run_look_reader_fit
from ruac.inference.export import load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import LooksConfig
from ruac.uncertainty.look_reader import INPUTS

FLIP = LooksConfig(looks=["flip"])  # masks of random weights fill the picture, which a zoom would leave alone


def config(coco_folder, shelf, out, **values):
    settings = {"images": 3, "objects": 2, "steps": 60, "batch": 256, "looks": FLIP, "cpu": True} | values
    return LookReaderFitConfig(source=str(coco_folder), backbone=str(shelf / "backbone.yaml"), out=str(out), **settings)


def test_a_fit_lowers_the_loss_and_its_export_reads_looks(coco_folder, shelf, tmp_path):
    out = run_look_reader_fit(config(coco_folder, shelf, tmp_path / "reader"))
    record = json.loads((out / "config.json").read_text())["record"]
    assert record["nll"]["after"] < record["nll"]["before"]
    fitted = load_exported(out)
    plain = UncertainSam(fitted.backbone, None, looks=fitted.looks)
    sample = open_dataset(coco_folder)[0]
    answers = answer_image({"plain": plain, "fitted": fitted}, sample, ProtocolConfig(clicks=1))
    np.testing.assert_array_equal(answers["plain"].masks, answers["fitted"].masks)
    probability = {name: answer.probability for name, answer in answers.items()}
    assert not torch.allclose(probability["plain"], probability["fitted"])
    sides = [p > 0.5 for p in probability.values()]
    decided = (probability["plain"] - 0.5).abs() > 1e-4
    assert torch.equal(sides[0] & decided, sides[1] & decided)


def test_what_is_drawn_is_the_same_every_time_and_twice_as_much_under_stress(coco_folder, shelf, tmp_path, nano):
    dataset, model = open_dataset(coco_folder), UncertainSam(nano, None)
    clean = draw_look_pixels(model, dataset, config(coco_folder, shelf, tmp_path, stressed=False))
    both = [draw_look_pixels(model, dataset, config(coco_folder, shelf, tmp_path)) for _ in range(2)]
    assert clean.inputs.shape[1] == len(INPUTS)
    assert clean.inputs.shape[0] == len(clean.logits) == len(clean.truth) == 3 * 2 * 140
    assert len(both[0].logits) == 2 * len(clean.logits)
    assert torch.equal(both[0].inputs, both[1].inputs)
    assert set(clean.truth.unique().tolist()) == {0.0, 1.0}


def test_stress_draws_the_families_that_are_named():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    masks = np.zeros((1, 40, 50), bool)
    masks[0, 5:20, 5:30] = True
    shifted, moved = stress(image, masks, StressConfig(families=["noise"]), np.random.default_rng(1))
    rng = np.random.default_rng(1)
    rng.integers(1)
    np.testing.assert_array_equal(shifted, SHIFTS["noise"](image, masks, rng)[0])
    np.testing.assert_array_equal(moved, masks)
    assert StressConfig(leave_out=["fog", "rain"]).drawn == [name for name in SHIFTS if name not in ("fog", "rain")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"looks": {"looks": ["zoom", "flip"]}}, "expected one look"),
        ({"images": 0}, "images: 0"),
        ({"backbone": None}, "exactly one of export= and backbone="),
        ({"stress": {"families": ["fogg"]}}, "'fogg', expected some of"),
        ({"stress": {"families": ["fog"], "leave_out": ["fog"]}}, "nothing is left"),
    ],
)
def test_unusable_settings_are_refused(coco_folder, values, message):
    content = {"source": str(coco_folder), "backbone": "nano"} | values
    with pytest.raises(RuacError, match=message):
        config_from(LookReaderFitConfig, content, "here")
