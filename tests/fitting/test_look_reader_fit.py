"""The reader of looks: fitted on clean and stressed source pictures, exported, and acting in the answer."""

import json

import numpy as np
import pytest
import torch

from ruac.base.config import config_from
from ruac.base.errors import RuacError
from ruac.calibration.descent import descend
from ruac.data.open import open_dataset
from ruac.data.synthetic.shifts import SHIFTS
from ruac.data.synthetic.stress import StressConfig, stress
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import answer_image
from ruac.fitting.look_reader import LookMaps, LookReaderFitConfig, draw_look_maps, fit_reader, run_look_reader_fit
from ruac.inference.export import load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import LooksConfig
from ruac.uncertainty.look_reader import INPUTS, LookReader, LookReaderConfig, reread

FLIP = LooksConfig(looks=["flip"])  # masks of random weights fill the picture, which a zoom would leave alone


def config(coco_folder, shelf, out, **values):
    settings = {"images": 3, "objects": 2, "steps": 20, "batch": 4, "looks": FLIP, "cpu": True}
    settings |= {"backbone": str(shelf / "backbone.yaml")} | values
    return LookReaderFitConfig(source=str(coco_folder), out=str(out), **settings)


def test_a_fit_lowers_the_loss_and_its_export_reads_looks(coco_folder, shelf, tmp_path):
    out = run_look_reader_fit(config(coco_folder, shelf, tmp_path / "reader"))
    record = json.loads((out / "config.json").read_text())["record"]
    for which in ("fitted", "held_out"):
        assert record["nll"][which]["after"] < record["nll"][which]["before"]
    assert 0 < record["steps_kept"] <= 20
    fitted = load_exported(out)
    plain = UncertainSam(fitted.backbone, None, looks=fitted.looks)
    sample = open_dataset(coco_folder)[0]
    models = {"plain": plain, "fitted": fitted}
    answers = answer_image(models, sample, ProtocolConfig(clicks=1))
    assert not torch.allclose(answers["plain"].probability, answers["fitted"].probability)
    decided = ((answers["fitted"].probability - 0.5).abs() > 1e-4).numpy()
    np.testing.assert_array_equal(
        answers["fitted"].masks & decided, (answers["fitted"].probability > 0.5).numpy() & decided
    )
    for model in models.values():
        model.looks = LooksConfig(looks=["flip"], keep_masks=True)
    kept = answer_image(models | {"vanilla": UncertainSam(fitted.backbone, None)}, sample, ProtocolConfig(clicks=1))
    for name, answer in kept.items():
        np.testing.assert_array_equal(answer.masks, kept["vanilla"].masks)
        if name != "vanilla":
            against = (answer.probability > 0.5).numpy() != answer.masks
            assert (answer.uncertainty["total"].numpy()[against] == 1).all()
    assert against.any(), "the reader contradicts masks of random weights"
    fitted.reader.config.look = "zoom"
    unread = answer_image({"plain": plain, "fitted": fitted}, sample, ProtocolConfig(clicks=1))
    assert torch.equal(unread["plain"].probability, unread["fitted"].probability), "a look it was not fitted to"


def test_a_fit_keeps_the_record_of_the_export_that_it_was_made_from(coco_folder, shelf, tmp_path):
    first = run_look_reader_fit(config(coco_folder, shelf, tmp_path / "first"))
    second = config(coco_folder, shelf, tmp_path / "second", backbone=None, export=str(first))
    records = [json.loads((out / "config.json").read_text())["record"] for out in (first, run_look_reader_fit(second))]
    assert "made_from" not in records[0]
    assert records[1]["made_from"] == records[0]


def test_an_export_may_look_again_only_where_it_is_asked(coco_folder, shelf, tmp_path):
    asked = load_exported(run_look_reader_fit(config(coco_folder, shelf, tmp_path / "reader", unasked=False)))
    assert asked.looks is None
    assert asked.reader.config.look == "flip"


def windows(count, seed, side=8):
    """Maps whose truth no input tells."""
    generator = torch.Generator().manual_seed(seed)
    return LookMaps(
        torch.randn(count, len(INPUTS), side, side, generator=generator).half(),
        torch.randn(count, side, side, generator=generator).half(),
        torch.rand(count, side, side, generator=generator) < 0.5,
        torch.rand(count, side, side, generator=generator) < 0.3,
        torch.arange(count),
    )


def test_a_fit_that_only_learns_its_pictures_by_heart_is_stopped():
    """Every step past the first ones makes held-out pictures worse."""
    torch.manual_seed(0)
    reader, fitted, held = LookReader(LookReaderConfig(hidden=32)), windows(5, 0), windows(5, 1)

    def held_out():
        with torch.no_grad():
            return float(held.loss(reader, 0.8))

    settings = LookReaderFitConfig(source="-", backbone="nano", steps=400, batch=4, rate=1e-2)
    steps = fit_reader(reader, fitted, held, settings)
    assert steps < 400
    stopped = held_out()
    descend(reader, lambda _: fitted.loss(reader, 0.8), steps=400, rate=1e-2)
    assert held_out() > stopped + 0.1


def test_the_loss_by_hand():
    maps = windows(3, 2)
    reader = LookReader(LookReaderConfig(hidden=4, context=3))
    logits = reread(maps.logits.float()[:, None], reader.read(maps.inputs.float()))[:, 0]
    values = -torch.where(maps.truth, logits, -logits).sigmoid().log()
    expected = [0.7 * v[near].mean() + 0.3 * v.mean() for v, near in zip(values, maps.band, strict=True)]
    torch.testing.assert_close(maps.loss(reader, 0.7), torch.stack(expected).mean())
    flipped = maps.flipped(-1, -2)
    assert torch.equal(flipped.inputs[..., 0, 0], maps.inputs[..., -1, -1])
    assert torch.equal(flipped.truth[..., 0, 0], maps.truth[..., -1, -1])


def test_an_object_without_a_band_counts_by_its_window():
    maps = windows(2, 3)
    maps.band[0] = False
    reader = LookReader(LookReaderConfig(hidden=4))
    alone = [maps.some(torch.tensor([n])).loss(reader, 0.8).item() for n in (0, 1)]
    assert maps.loss(reader, 0.8).item() == pytest.approx(np.mean(alone), rel=1e-5)
    assert np.isfinite(alone).all()


def test_what_is_drawn_is_the_same_every_time_and_twice_as_much_under_stress(coco_folder, shelf, tmp_path, nano):
    dataset, model = open_dataset(coco_folder), UncertainSam(nano, None)
    clean = draw_look_maps(model, dataset, config(coco_folder, shelf, tmp_path, stressed=False))
    both = [draw_look_maps(model, dataset, config(coco_folder, shelf, tmp_path)) for _ in range(2)]
    assert clean.inputs.shape[:2] == (3 * 2, len(INPUTS))
    assert clean.inputs.shape[2:] == clean.logits.shape[1:] == clean.truth.shape[1:] == clean.band.shape[1:]
    assert len(both[0].logits) == 2 * len(clean.logits)
    assert torch.equal(both[0].inputs, both[1].inputs)
    assert clean.image.unique().tolist() == both[0].image.unique().tolist() == [0, 1, 2]
    assert set(clean.truth.unique().tolist()) == {False, True}


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
        ({"held_out": 1}, "held_out between 0 and 1"),
        ({"protocol": {"next_click": "replay"}}, "there are no clicks to repeat"),
        ({"backbone": None}, "exactly one of export= and backbone="),
        ({"stress": {"families": ["fogg"]}}, "'fogg', expected some of"),
        ({"stress": {"families": ["fog"], "leave_out": ["fog"]}}, "nothing is left"),
    ],
)
def test_unusable_settings_are_refused(coco_folder, values, message):
    content = {"source": str(coco_folder), "backbone": "nano"} | values
    with pytest.raises(RuacError, match=message):
        config_from(LookReaderFitConfig, content, "here")
