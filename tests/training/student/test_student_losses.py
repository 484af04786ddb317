"""Losses and schedules of students against loops, and what each method does with its views."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ruac.data.classes import IGNORE
from ruac.training.engine import EngineConfig, rate_share
from ruac.training.student.losses import (
    agreement_loss,
    channel_dropout,
    complementary_dropout,
    decayed_share,
    label_loss,
)
from ruac.training.student.methods import ConsistencyConfig, Plan, StagesConfig, method_losses
from ruac.training.student.models import Segmenter
from ruac.training.student.task import Teacher

K, S = 3, 4


def own_nll(logits, b, y, x, k):
    z = logits[b, :, y, x].double()
    return float(torch.logsumexp(z, 0) - z[k])


def test_label_loss_is_the_mean_over_known_pixels():
    logits, labels = torch.randn(2, K, S, S), torch.randint(0, K, (2, S, S))
    labels[0, 1:3], labels[1, 0, 0] = IGNORE, IGNORE
    known = [(b, y, x) for b, y, x in np.ndindex(2, S, S) if labels[b, y, x] != IGNORE]
    wanted = sum(own_nll(logits, b, y, x, labels[b, y, x]) for b, y, x in known) / len(known)
    assert float(label_loss(logits, labels)) == pytest.approx(wanted, rel=1e-5)
    logits.requires_grad_()
    nothing = label_loss(logits, torch.full_like(labels, IGNORE))
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert not logits.grad.any()


def test_agreement_loss_counts_sure_pixels_and_divides_by_all():
    logits, target = torch.randn(2, K, S, S), torch.randint(0, K, (2, S, S))
    confidence = torch.rand(2, S, S)
    sure = [(b, y, x) for b, y, x in np.ndindex(2, S, S) if confidence[b, y, x] >= 0.7]
    wanted = sum(own_nll(logits, b, y, x, target[b, y, x]) for b, y, x in sure) / (2 * S * S)
    assert float(agreement_loss(logits, target, confidence, 0.7)) == pytest.approx(wanted, rel=1e-5)


def test_lambda_decays_exponentially_from_the_start_epoch():
    share = [decayed_share(t, start=60, end=80, share=0.5, decay=5.0) for t in (60, 64, 68, 80)]
    assert share[0] == 0.5
    assert share[1] / share[0] == pytest.approx(share[2] / share[1])
    assert share[3] == pytest.approx(0.5 * math.exp(-5))


def test_poly_schedule_is_the_papers():
    config = EngineConfig(schedule="poly", steps=200, final_share=0.0)
    for step in (0, 1, 77, 199):
        assert rate_share(step, config) == pytest.approx((1 - step / 200) ** 0.9)


@pytest.mark.parametrize(
    ("method", "then", "early", "late"),
    [
        ("supervised", "fixmatch", (None, 1, 0), (None, 1, 0)),
        ("pseudo", "fixmatch", ("pseudo", 1, 0.7), ("pseudo", 1, 0.7)),
        ("self_training", "fixmatch", (None, 1, 0), ("self_training", 0.6, 0.4)),
        ("conformal_sam", "self_training", ("pseudo", 1, 0.7), ("self_training", 0.6, 0.4)),
        ("conformal_sam", "unimatch_v2", ("pseudo", 1, 0.7), ("unimatch_v2", 0.6, 0.4)),
        ("fixmatch", "self_training", ("fixmatch", 0.5, 0.5), ("fixmatch", 0.5, 0.5)),
        ("unimatch_v1", "self_training", ("unimatch_v1", 0.5, 0.5), ("unimatch_v1", 0.5, 0.5)),
    ],
)
def test_stages(method, then, early, late):
    plan = Plan.of(method, then, 8, StagesConfig(start=6, share=0.4, decay=5.0, weight=0.7))
    assert plan.at(0.7499) == pytest.approx(early) if early[0] is None else plan.at(0.7499) == early
    assert plan.at(0.75) == pytest.approx(late)
    assert plan.kinds == {early[0], late[0]} - {None}


def test_without_epochs_for_it_there_is_no_stage_two():
    assert Plan.of("conformal_sam", "unimatch_v2", 8, StagesConfig(start=8)).kinds == {"pseudo"}


class Widen(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, images):
        return [self.conv(images)]


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, K, 1)

    def forward(self, maps):
        return self.conv(maps[0])


@pytest.fixture
def model():
    return Segmenter(Widen(), Linear())


@pytest.fixture
def batch():
    named = {name: torch.randn(2, 3, S, S) for name in ("image", "weak", "strong1", "strong2")}
    boxes = {f"box{view}": torch.zeros(2, S, S, dtype=torch.bool) for view in (1, 2)}
    boxes["box1"][0, :2, :2] = True
    boxes["box2"][1, 1:, 1:] = True
    maps = {name: torch.randint(0, K, (2, S, S)) for name in ("labels", "pseudo")}
    return named | boxes | maps


def mixed(batch, values, view):
    """CutMix pixel by pixel: inside the box of a picture stands the other picture of the batch."""
    out = values.clone()
    for b, y, x in np.ndindex(2, S, S):
        if batch[f"box{view}"][b, y, x]:
            out[b, ..., y, x] = values[1 - b, ..., y, x]
    return out


def judged(model, images):
    probability = model(images).softmax(1)
    return probability.argmax(1), probability.amax(1)


def test_pseudo_learns_labels_and_pseudo_labels(model, batch):
    terms = method_losses("pseudo", model, model, batch, ConsistencyConfig())
    assert torch.allclose(terms["labelled"], label_loss(model(batch["image"]), batch["labels"]))
    assert torch.allclose(terms["unlabelled"], label_loss(model(batch["weak"]), batch["pseudo"]))


def test_self_training_learns_every_own_label_without_pasting(model, batch):
    target, confidence = judged(model, batch["weak"])
    terms = method_losses("self_training", model, model, batch, ConsistencyConfig())
    wanted = agreement_loss(model(batch["strong1"]), target, confidence, 0.0)
    assert torch.allclose(terms["unlabelled"], wanted, rtol=1e-5)


def test_fixmatch_pastes_pictures_labels_and_confidence_alike(model, batch):
    target, confidence = judged(model, batch["weak"])
    terms = method_losses("fixmatch", model, model, batch, ConsistencyConfig(threshold=0.45))
    answer = model(mixed(batch, batch["strong1"], 1))
    wanted = agreement_loss(answer, mixed(batch, target, 1), mixed(batch, confidence, 1), 0.45)
    assert 0 < float(terms["sure"]) < 1
    assert torch.allclose(terms["unlabelled"], wanted, rtol=1e-5)


def test_unimatch_v1_adds_a_view_and_a_feature_stream(model, batch):
    config = ConsistencyConfig(threshold=0.45)
    torch.manual_seed(5)
    terms = method_losses("unimatch_v1", model, model, batch, config)
    target, confidence = judged(model, batch["weak"])
    wanted = 0
    for view in (1, 2):
        answer = model(mixed(batch, batch[f"strong{view}"], view))
        own = agreement_loss(answer, mixed(batch, target, view), mixed(batch, confidence, view), 0.45)
        wanted = wanted + 0.25 * own
    torch.manual_seed(5)
    (maps,) = model.encode(batch["weak"])
    (factor,) = channel_dropout([maps], config.dropout)
    wanted = wanted + 0.5 * agreement_loss(model.decode([maps * factor], S), target, confidence, 0.45)
    assert torch.allclose(terms["unlabelled"], wanted, rtol=1e-5)


def test_unimatch_v2_asks_the_teacher_and_drops_complementary_channels(model, batch):
    teacher = Segmenter(Widen(), Linear())
    torch.manual_seed(5)
    terms = method_losses("unimatch_v2", model, teacher, batch, ConsistencyConfig(threshold=0.4))
    target, confidence = judged(teacher, batch["weak"])
    maps = [model.encode(mixed(batch, batch[f"strong{view}"], view)) for view in (1, 2)]
    torch.manual_seed(5)
    factors = complementary_dropout(maps[0])
    wanted = 0
    for view in (1, 2):
        answer = model.decode([maps[view - 1][0] * factors[view - 1][0]], S)
        own = agreement_loss(answer, mixed(batch, target, view), mixed(batch, confidence, view), 0.4)
        wanted = wanted + own / 2
    assert torch.allclose(terms["unlabelled"], wanted, rtol=1e-5)
    assert all(p.grad is None for p in teacher.parameters())


def test_complementary_dropout_keeps_a_channel_in_one_view():
    maps = [torch.zeros(6, 400, 2, 2), torch.zeros(6, 50, 1, 1)]
    first, second = complementary_dropout(maps)
    for one, other in zip(first, second, strict=True):
        assert (one + other == 2).all()
    whole = [(factor == 1).all() for factor in first[0]]
    assert sum(whole) == 3
    assert whole == [(factor == 1).all() for factor in first[1]]
    assert first[0][[not w for w in whole]].mean() == pytest.approx(1, abs=0.15)


def test_channel_dropout_keeps_the_mean():
    (factor,) = channel_dropout([torch.zeros(20, 500, 2, 2)], 0.3)
    assert factor.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert float(factor.mean()) == pytest.approx(1, abs=0.03)


def test_the_teacher_is_a_running_mean(model):
    teacher = Teacher(model, ema=0.6)
    values = [torch.randn(()) for _ in range(5)]
    weight, mean = model.head.conv.bias, None
    for step, value in enumerate(values):
        with torch.no_grad():
            weight.fill_(value)
        teacher.follow(model)
        kept = min(1 - 1 / (step + 1), 0.6)
        mean = value if mean is None else kept * mean + (1 - kept) * value
    assert float(teacher.model.head.conv.bias[0]) == pytest.approx(float(mean), abs=1e-5)
    assert not any(p.requires_grad for p in teacher.parameters())
