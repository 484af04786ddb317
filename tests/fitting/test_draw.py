"""Drawn answers are the sweep's own, and so are the pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ruac.calibration import build_calibrator
from ruac.data.open import open_dataset
from ruac.evaluation import score
from ruac.evaluation.metrics import object_band
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import answer_image
from ruac.fitting.draw import PixelConfig, StressedDrawConfig, as_answers, draw_pixels, draw_prompted
from ruac.inference.ensemble import Ensemble, EnsembleConfig
from ruac.inference.model import UncertainSam
from ruac.uncertainty import build_head, head_config

PROTOCOL = ProtocolConfig(clicks=3)


@pytest.fixture
def sample(coco_folder):
    return open_dataset(coco_folder)[1]  # three objects


def models(nano):
    torch.manual_seed(3)
    for posterior in ("signed", "nonnegative"):
        config = head_config(posterior)
        yield UncertainSam(nano, build_head(config, token_dim=nano.token_dim, channels=nano.channels)).eval()
    yield UncertainSam(nano, None)
    yield UncertainSam(nano, Ensemble(EnsembleConfig(flips=["horizontal"], jitters=1)))


def test_logits_are_those_of_the_sweeps_probability(nano, sample):
    """At every pixel of every object, whatever the model."""
    every = PixelConfig(pixels=10**9, band_share=0.0)
    for model in models(nano):
        answer = answer_image({"m": model}, sample, PROTOCOL)["m"]
        stored = draw_prompted(model, sample, PROTOCOL, every, 0)
        one = as_answers(stored)
        n, y, x = (stored[name].long() for name in ("owner", "y", "x"))
        assert len(one.truth) == sample.masks.size
        torch.testing.assert_close(one.pixels().sigmoid(), answer.probability[n, y, x], rtol=0, atol=2e-5)
        assert np.array_equal(one.truth.numpy() > 0.5, sample.masks[n, y, x])
        assert stored["clicks"].tolist() == [[1] * 3, [2] * 3, [3] * 3]
        assert not one.near.any()


def test_a_calibrator_sees_the_same_when_it_is_fitted_and_when_it_is_used(nano, sample):
    """The stored evidence gives the same calibrated logits as a model with the calibrator in it."""
    for kind in ("clustered", "clicks", "local", "answer"):
        calibrator = build_calibrator(kind)
        torch.manual_seed(1)
        with torch.no_grad():
            for name, value in calibrator.state_dict().items():
                if "middle" not in name and "spread" not in name:
                    value.add_(0.3 * torch.randn_like(value))
        if kind == "clustered":
            calibrator.centres = torch.randn(16, nano.token_dim)
        calibrator.requires_grad_(False)
        for plain in models(nano):
            one = as_answers(draw_prompted(plain, sample, PROTOCOL, PixelConfig(pixels=600), 0))
            expected = one.pixels(calibrator(one.logits, one.evidence))
            plain.calibrator = calibrator
            answer = answer_image({"m": plain}, sample, PROTOCOL)["m"]
            plain.calibrator = None
            stored = draw_prompted(plain, sample, PROTOCOL, PixelConfig(pixels=600), 0)
            n, y, x = (stored[name].long() for name in ("owner", "y", "x"))
            # Tokens and pictures are stored as halves.
            torch.testing.assert_close(expected.sigmoid(), answer.probability[n, y, x], rtol=0, atol=5e-3)
            assert not torch.allclose(one.pixels(), expected, rtol=1e-2)


def test_blocks_of_objects_make_no_difference(nano, sample, monkeypatch):
    model, config = UncertainSam(nano, None), PixelConfig(pixels=600)
    together = draw_prompted(model, sample, PROTOCOL, config, 0)
    monkeypatch.setattr(score, "BLOCK", 1)
    alone = draw_prompted(model, sample, PROTOCOL, config, 0)
    assert together.keys() == alone.keys()
    for name, value in together.items():
        torch.testing.assert_close(alone[name].float(), value.float(), rtol=0, atol=2e-2, msg=name)
    assert all(torch.equal(alone[name], together[name]) for name in ("owner", "y", "x", "truth", "near"))


def test_at_most_so_many_objects_and_other_ones_with_another_seed(nano, coco_folder):
    model = UncertainSam(nano, None)
    sample = open_dataset(coco_folder)[1]
    chosen = set()
    for seed in range(6):
        stored = draw_prompted(model, sample, PROTOCOL, PixelConfig(pixels=50, objects=1), seed)
        assert stored["logits"].shape[1] == 1
        chosen.add(round(float(stored["logits"].sum()), 2))
    assert len(chosen) > 1


def test_pixels_are_of_the_band_and_of_anywhere():
    masks = np.zeros((2, 40, 60), dtype=bool)
    masks[0, 5:15, 5:15], masks[1, 20:38, 30:55] = True, True
    rng = np.random.default_rng(0)
    drawn = draw_pixels(masks, PixelConfig(pixels=400, band_share=0.25), rng)
    n, y, x = (drawn[name].numpy() for name in ("owner", "y", "x"))
    band, near = object_band(masks), drawn["near"].numpy()
    assert len(n) == 400
    assert np.bincount(n).tolist() == [200, 200]
    assert near.sum() == 100
    assert band[n, y, x][near].all()
    assert 0.05 < band[n, y, x][~near].mean() < 0.6
    assert np.array_equal(drawn["truth"].numpy(), masks[n, y, x])
    assert drawn["size"].tolist() == [40, 60]
    places = list(zip(n[near], y[near], x[near], strict=True))
    assert len(set(places)) == len(places)
    small = draw_pixels(masks[:1], PixelConfig(pixels=10**6, band_share=1.0), rng)
    assert len(small["y"]) == band[0].sum()  # all there are, and no more


def test_a_round_is_that_click(nano, sample):
    model = UncertainSam(nano, None)
    stored = draw_prompted(model, sample, PROTOCOL, PixelConfig(pixels=60), 0)
    first = draw_prompted(model, sample, replace(PROTOCOL, clicks=1), PixelConfig(pixels=60), 0)
    assert torch.equal(as_answers(stored, round=0).logits, as_answers(first).logits)
    assert not torch.equal(as_answers(stored).logits, as_answers(first).logits)
    assert as_answers(stored, round=1).evidence.clicks.tolist() == [2, 2, 2]


def test_impossible_settings():
    from ruac.base.errors import RuacError
    from ruac.training.attack import AttackConfig

    for made, message in (
        (PixelConfig(pixels=0), "pixels 0"),
        (PixelConfig(band_share=2.0), "band_share: 2.0"),
        (StressedDrawConfig(corrections=-1), "corrections of at least 0"),
        (
            StressedDrawConfig(attack=AttackConfig(kind="learned")),
            r"stress\.attack\.kind: learned, expected an attack that",
        ),
    ):
        with pytest.raises(RuacError, match=message):
            made.validate()
