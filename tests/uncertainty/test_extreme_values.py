"""Nothing becomes nan or infinite at the ends of what the networks can ask for, forward or backward."""

import itertools

import pytest
import torch
from builders import decoded_of, make_decoded

from ruac.training.losses.alignment import ALIGNMENT_MODES, alignment_loss
from ruac.training.losses.band import loss_band
from ruac.training.losses.scoring import cross_entropy_score
from ruac.training.losses.segmentation import SegmentationConfig, segmentation_loss
from ruac.uncertainty import BayesianConfig, build_head, weibull
from ruac.uncertainty.evidential import EvidentialConfig, EvidentialLossConfig, evidential_loss
from ruac.uncertainty.maps import (
    binary_entropy,
    decompose,
    logit_uncertainty,
    monte_carlo_maps,
    probability,
    total_uncertainty,
)

SHAPES = (weibull.LEAST_SHAPE, 0.5, 10.0, 1e4)
SCALES = (0.0, 1e-30, 1.0, 1e6)
LOGITS = (-1e4, -100.0, 0.0, 1e-30, 100.0, 1e4)
VARIANCES = (0.0, 1e-30, 1.0, 1e8, 1e30)
DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def grid(*axes, dtype=torch.float32):
    """Every combination of the values, one leaf tensor per axis."""
    columns = zip(*itertools.product(*axes), strict=True)
    return [torch.tensor(column, dtype=dtype).requires_grad_() for column in columns]


def assert_sound(found, *leaves):
    """Finite, and so is the gradient at every leaf, those it does not reach left out."""
    found = [found] if isinstance(found, torch.Tensor) else list(found)
    for value in found:
        assert torch.isfinite(value).all(), value
    total = sum(value.double().sum() for value in found)
    slopes = torch.autograd.grad(total, leaves, allow_unused=True, retain_graph=True)
    assert any(slope is not None for slope in slopes)
    for slope in slopes:
        assert slope is None or torch.isfinite(slope).all(), slope


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["mean", "variance", "cv2", "scale_from_mean", "rsample", "kl_gamma"])
def test_weibull(name, dtype):
    scale, shape = grid(SCALES, SHAPES, dtype=dtype)
    if name == "cv2":
        assert torch.isfinite(weibull.cv2(shape.detach())).all()  # the polynomial, which has no gradient
        return assert_sound(weibull.cv2(shape), shape)
    assert_sound(getattr(weibull, name)(scale, shape), scale, shape)


@pytest.mark.parametrize("draw", [0.0, 1.0 - 2**-24])
def test_a_draw_at_the_end_of_the_unit_interval(draw, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda size, dtype=None, **_: torch.full(size, draw, dtype=dtype))
    scale, shape = grid(SCALES, SHAPES)
    assert_sound(weibull.rsample(scale, shape), scale, shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [f.__name__ for f in (probability, total_uncertainty, decompose)])
def test_maps(name, dtype):
    mean, variance = grid(LOGITS, VARIANCES, dtype=dtype)
    found = {"probability": probability, "total_uncertainty": total_uncertainty, "decompose": decompose}[name]
    assert_sound(found(mean, variance), mean, variance)
    with torch.no_grad():  # another way on a CPU
        assert all(torch.isfinite(x).all() for x in found(mean, variance))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_entropies(dtype):
    (logits,) = grid(LOGITS, dtype=dtype)
    assert_sound(logit_uncertainty(logits), logits)
    (p,) = grid((0.0, 1e-38, 0.5, 1.0), dtype=dtype)
    assert_sound(binary_entropy(p), p)


TARGETS = {"empty": torch.zeros(3, 8, 8), "full": torch.ones(3, 8, 8), "soft": torch.full((3, 8, 8), 0.5)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("logit", LOGITS)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_losses(logit, target, dtype):
    target = TARGETS[target]
    logits = torch.full((3, 4, 8, 8), logit, dtype=dtype, requires_grad=True)
    iou = torch.full((3, 4), logit, dtype=dtype, requires_grad=True)
    score = torch.full((3, 1), logit, dtype=dtype, requires_grad=True)
    terms = segmentation_loss(logits, iou, score, target, SegmentationConfig())
    for name, term in terms.items():
        assert_sound(term, logits, iou, score), name
    mean = logits[:, 0]
    variance = torch.full((3, 8, 8), 1e6, dtype=dtype, requires_grad=True)
    assert_sound(cross_entropy_score(mean, variance, target), logits, variance)
    for mode in ALIGNMENT_MODES:
        assert_sound(alignment_loss(mean, target, total_uncertainty(mean, variance), mode=mode), logits, variance)
    assert loss_band(target).any() == bool(target.any())


def extreme_decoded(gain, dtype):
    decoded = make_decoded(gain=gain, dtype=dtype)
    for tensor in (decoded.pixel_tokens, decoded.mask_tokens, decoded.mask_weights):
        tensor.requires_grad_()
    decoded.logits.requires_grad_()
    return decoded


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("gain", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("raw", [-1e4, 1e4], ids=["least kappa", "most kappa"])
@pytest.mark.parametrize("kind", ["signed", "nonnegative"])
def test_bayesian_head(kind, raw, gain, dtype):
    head = build_head(
        BayesianConfig(posterior=kind, local_temperature=True, logit_scale=True), token_dim=24, channels=8
    )
    with torch.no_grad():
        head.pixel_shape[-1].bias.fill_(raw)
        head.weight_shape.bias.fill_(raw)
    decoded = extreme_decoded(gain, dtype)
    posterior = head(decoded)
    leaves = [*head.parameters(), decoded.pixel_tokens, decoded.mask_weights, decoded.logits]
    for value in (posterior.mean, posterior.variance, posterior.kl(), posterior.sample(), *posterior.calibrated()):
        assert_sound(value, *leaves)
    maps = monte_carlo_maps(posterior, samples=2)
    assert all(torch.isfinite(x).all() for x in (maps.total, maps.aleatoric, maps.epistemic))


@pytest.mark.parametrize("gain", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("raw", [-1e4, 0.0, 1e4])
def test_evidential_head(raw, gain):
    head = build_head(EvidentialConfig(), token_dim=24, channels=8)
    with torch.no_grad():
        head.last.bias.fill_(raw)
    decoded = extreme_decoded(gain, torch.float32)
    posterior = head(decoded)
    leaves = [*head.parameters(), decoded.pixel_tokens]
    for value in (posterior.mean, posterior.variance, posterior.sample()):
        assert_sound(value, *leaves)
    for target in (0.0, 1.0):
        loss = evidential_loss(posterior, torch.full_like(posterior.gamma, target), EvidentialLossConfig(weight=1.0))
        assert_sound(loss, *leaves)


@pytest.mark.parametrize("logit", LOGITS)
def test_undecided_and_saturated_answers_have_a_local_scale(logit):
    head = build_head(BayesianConfig(local_temperature=True), token_dim=1, channels=1)
    logits = torch.full((2, 4, 8, 8), logit, requires_grad=True)
    mean, variance = head(decoded_of(logits)).calibrated()
    assert_sound((mean, variance), logits, *head.local_temperature.parameters())
