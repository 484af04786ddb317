"""Temperatures that a network reads off the picture, the logits or the answer."""

import numpy as np
import pytest
import torch

from ruac.backbone.outputs import upsample
from ruac.calibration import Answers
from ruac.calibration.answer import Answer, AnswerConfig
from ruac.calibration.local import Local, LocalConfig
from ruac.calibration.temperature import Temperature


def scale(calibrator, one):
    return float((one.logits / calibrator.apply(one.logits, one.evidence)).median())


@pytest.mark.parametrize("reads", ["both", "image"])
def test_a_temperature_that_depends_on_the_picture_is_found(pictures, loss, reads):
    answers, others = pictures((0.7, 3.0), count=24), pictures((0.7, 3.0), count=8)
    calibrator, plain = Local(LocalConfig(reads, steps=400)), Temperature()
    calibrator.fit(answers)
    plain.fit(answers)
    assert scale(calibrator, others[0]) == pytest.approx(0.7, rel=0.25)
    assert scale(calibrator, others[1]) == pytest.approx(3.0, rel=0.25)
    assert loss(calibrator, others) < loss(plain, others) - 0.02


def test_a_temperature_that_depends_on_the_logit_is_found(loss):
    """Confident pixels that are no better than the others: only what reads the logits sees them."""

    def make():
        logits = 4 * torch.randn(2, 16, 16)
        certain = logits.abs() > 5
        return Answers.of(logits, torch.rand(2, 16, 16) < torch.where(certain, logits / 6, logits).sigmoid())

    answers, others = [make() for _ in range(24)], [make() for _ in range(8)]
    calibrator, plain = Local(LocalConfig("logits", steps=400)), Temperature()
    calibrator.fit(answers)
    plain.fit(answers)
    assert loss(calibrator, others) < loss(plain, others) - 0.01


def test_ablations_do_not_see_what_they_are_not_shown(pictures):
    (one, *_) = answers = pictures(count=4)
    image, logits, both = (Local(LocalConfig(reads, steps=20)) for reads in ("image", "logits", "both"))
    for calibrator in (image, logits, both):
        calibrator.fit(answers)
    other = 7 * torch.randn_like(one.logits)
    with torch.no_grad():
        maps = {c: c.log_temperature(one.logits, one.evidence) for c in (image, logits, both)}
        assert torch.equal(image.log_temperature(other, one.evidence), maps[image])
        assert torch.equal(logits.log_temperature(one.logits, answers[1].evidence), maps[logits])
        assert not torch.equal(both.log_temperature(other, one.evidence), maps[both])
        assert not torch.equal(both.log_temperature(one.logits, answers[1].evidence), maps[both])
    assert (image.reads, logits.reads) == (("image",), ())


def test_one_step_starts_from_temperature_scaling(pictures):
    answers = pictures(count=6)
    calibrator, plain = Local(LocalConfig(steps=1, rate=1e-9)), Temperature()
    calibrator.fit(answers)
    plain.fit(answers)
    assert float(calibrator.tree.offset.detach()) == pytest.approx(float(plain.log_temperature), abs=1e-6)


def test_a_scale_that_depends_on_the_answer_is_found(pictures, loss):
    answers, others = pictures((0.7, 3.0), count=24), pictures((0.7, 3.0), count=8)
    calibrator, plain = Answer(AnswerConfig(hidden=8, steps=400, batch=2048, rate=1e-2)), Temperature()
    calibrator.fit(answers)
    plain.fit(answers)
    assert scale(calibrator, others[0]) == pytest.approx(0.7, rel=0.3)
    assert scale(calibrator, others[1]) == pytest.approx(3.0, rel=0.3)
    assert loss(calibrator, others) < loss(plain, others) - 0.02


def test_pixels_are_those_of_the_upsampled_map():
    """Every pixel of a picture of another shape, from the cells around it."""
    maps = torch.randn(3, 2, 8, 8)
    height, width = 37, 21
    big = upsample(maps, (height, width))
    n, y, x = (torch.randint(size, (500,)) for size in (3, height, width))
    cells = [((axis + 0.5) * (8 / size) - 0.5).clamp(min=0) for axis, size in ((y, height), (x, width))]
    place = torch.stack([n.float(), *cells], dim=1)
    one = Answers(maps[:, :1], place, torch.zeros(500), torch.ones(500, dtype=torch.bool), None)
    torch.testing.assert_close(one.at_places(maps), big[n, :, y, x], rtol=0, atol=1e-5)
    nearest = one.nearest()
    expected = np.minimum(np.floor((y.numpy() + 0.5) * 8 / height).astype(int), 7)
    assert (np.abs(nearest[1].numpy() - expected) <= 1).all()
    assert (nearest[1].numpy() == expected).mean() > 0.95


def test_ones_own_maps_keep_their_shape():
    logits = torch.randn(2, 5, 7)
    one = Answers.of(logits, logits > 0)
    assert one.logits.shape == (2, 1, 5, 7)
    assert torch.equal(one.pixels(), logits.reshape(-1))
    flat = Answers.of(logits.reshape(-1), (logits > 0).reshape(-1))
    assert torch.equal(flat.pixels(), logits.reshape(-1))
