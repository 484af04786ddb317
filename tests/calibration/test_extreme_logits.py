"""Calibrators of saturated logits: what is fitted to them and what is applied to them stays finite."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ruac.base.errors import RuacError
from ruac.calibration import Answers
from ruac.calibration.descent import descend
from ruac.calibration.registry import KINDS, KindSettings, build_calibrator


def saturated(pictures):
    """The logits of `pictures`, each pushed to -1e4, 0 or 1e4; the truth contradicts some."""
    found = []
    for one in pictures([1.0, 3.0], count=16):
        far = 1e4 * (one.logits / 2).round().clamp(-1, 1)
        tokens = 1e4 * (one.evidence.tokens / 2).round().clamp(-1, 1)
        found.append(replace(one, logits=far, evidence=replace(one.evidence, tokens=tokens)))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_fitted_to_saturated_logits(kind, pictures):
    answers = saturated(pictures)
    settings = KindSettings()
    settings.local.steps, settings.answer.steps = 3, 3
    calibrator = build_calibrator(kind, settings)
    calibrator.fit(answers)
    for name, tensor in calibrator.state_dict().items():
        assert torch.isfinite(tensor).all(), name
    for value in (-1e4, -1e-30, 0.0, 1e-30, 1e4):
        logits = torch.full_like(answers[0].logits, value)
        found = calibrator.apply(logits, answers[0].evidence)
        assert torch.isfinite(found).all()
        assert not calibrator.keeps_masks or ((found > 0) <= (logits > 0)).all()
        half = calibrator.apply(logits.bfloat16(), answers[0].evidence)
        assert torch.isfinite(half).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(value):
    with pytest.raises(RuacError, match=r"logits: .* expected finite numbers"):
        Answers.of(torch.tensor([1.0, value]), torch.tensor([True, False]))


def test_a_fit_whose_loss_is_not_finite_stops_and_leaves_its_weights():
    network = nn.Linear(2, 1)
    before = network.weight.clone()
    with pytest.raises(RuacError, match="step 1 of 3: the loss of the fit is not finite"):
        descend(network, lambda step: network(torch.full((1, 2), torch.nan)).sum(), steps=3, rate=0.1)
    assert torch.equal(network.weight, before)
