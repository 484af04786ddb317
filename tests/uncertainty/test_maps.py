import math

import numpy as np
import pytest
import torch

from ruac.uncertainty import maps

GRID = torch.cartesian_prod(torch.linspace(-8, 8, 33), torch.tensor([0.0, 0.1, 1.0, 4.0, 16.0]))
MEAN, VARIANCE = GRID[:, 0], GRID[:, 1]


def exact_maps(mean, variance):
    """Probability, total and aleatoric in nats by a dense sum over the normal density, in float64."""
    x = np.linspace(-9, 9, 20001)
    weight = np.exp(-(x**2) / 2)
    weight /= weight.sum()
    logits = mean.double().numpy()[:, None] + np.sqrt(variance.double().numpy())[:, None] * x
    p = 1 / (1 + np.exp(-logits))
    average = (p * weight).sum(1)
    return average, entropy(average), (entropy(p) * weight).sum(1)


def entropy(p):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(-p * np.log(p)) + np.nan_to_num(-(1 - p) * np.log(1 - p))


def test_maps_match_dense_integration():
    probability, total, aleatoric = exact_maps(MEAN, VARIANCE)
    result = maps.uncertainty_maps(MEAN, VARIANCE).in_nats()
    # MacKay is an approximation: at worst, on this grid, 0.015 in probability and 0.046 nats in entropy.
    np.testing.assert_allclose(result.probability, probability, atol=0.02)
    np.testing.assert_allclose(result.total, total, atol=0.05)
    moderate = (VARIANCE <= 4).numpy()
    for value, expected in ((result.aleatoric, aleatoric), (result.epistemic, total - aleatoric)):
        np.testing.assert_allclose(value, expected, atol=0.01)
        np.testing.assert_allclose(value[moderate], expected[moderate], atol=5e-4)


def test_total_is_the_entropy_of_the_probit_probability():
    p = 1 / (1 + np.exp(-MEAN.double().numpy() / np.sqrt(1 + np.pi * VARIANCE.double().numpy() / 8)))
    result = maps.uncertainty_maps(MEAN, VARIANCE)
    np.testing.assert_allclose(result.probability, p, atol=1e-6)
    np.testing.assert_allclose(result.total, entropy(p) / np.log(2), rtol=1e-5)


def test_maps_lie_between_zero_and_one():
    mean = torch.cat([torch.linspace(-1e-3, 1e-3, 2001), torch.linspace(-1e4, 1e4, 2001)])
    for variance in (0.0, 1e-6, 1.0, 1e6):
        result = maps.uncertainty_maps(mean, torch.full_like(mean, variance))
        for value in (result.probability, result.total, result.aleatoric, result.epistemic):
            assert ((value >= 0) & (value <= 1)).all()


def test_without_variance_everything_is_aleatoric():
    mean = torch.linspace(-6, 6, 101)
    result = maps.uncertainty_maps(mean, torch.zeros(101))
    torch.testing.assert_close(result.probability, mean.sigmoid())
    torch.testing.assert_close(result.aleatoric, result.total, atol=2e-6, rtol=0)
    assert result.epistemic.max() < 2e-6


def test_variance_raises_total_and_epistemic():
    variance = torch.linspace(0, 10, 50)
    result = maps.uncertainty_maps(torch.full((50,), 2.0), variance)
    assert (result.total.diff() > 0).all()
    assert (result.epistemic.diff() > 0).all()


def test_nats_are_the_normalised_maps_times_ln_two():
    result = maps.uncertainty_maps(torch.zeros(1), torch.zeros(1))
    assert result.total.item() == 1
    assert result.in_nats().total.item() == pytest.approx(math.log(2))
    assert torch.equal(result.in_nats().probability, result.probability)


def test_binary_entropy_is_exact_at_the_ends_and_its_gradient_finite():
    p = torch.tensor([0.0, 1.0, 0.5, 0.25], requires_grad=True)
    value = maps.binary_entropy(p)
    (slope,) = torch.autograd.grad(value.sum(), p)
    assert value[0] == value[1] == 0
    np.testing.assert_allclose(value[2:].detach(), entropy(np.array([0.5, 0.25])), rtol=1e-6)
    assert torch.isfinite(slope).all()
    assert slope[0] > 10
    assert slope[1] < -10
    assert slope[2] == 0
    assert slope[3].item() == pytest.approx(math.log(3), rel=1e-6)


def test_confident_pixels_keep_their_order():
    """A sigmoid in float32 is exactly 1 from logit 17 on; the entropy of the logit is not exactly 0."""
    logits = torch.linspace(5, 60, 200)
    values = maps.logit_entropy(logits)
    assert (values.diff() < 0).all()
    torch.testing.assert_close(maps.logit_entropy(-logits), values)
    result = maps.uncertainty_maps(logits, torch.full_like(logits, 0.5))
    assert (result.total.diff() < 0).all()
    torch.testing.assert_close(
        maps.logit_entropy(torch.tensor([0.3])), maps.binary_entropy(torch.tensor([0.3]).sigmoid())
    )


def test_gradients_match_finite_differences():
    mean = torch.tensor([-3.0, -0.4, 0.7, 5.0], dtype=torch.float64, requires_grad=True)
    variance = torch.tensor([0.2, 1.0, 4.0, 0.5], dtype=torch.float64, requires_grad=True)

    def outputs(mean, variance):
        result = maps.uncertainty_maps(mean, variance)
        return result.probability, result.total, result.aleatoric, result.epistemic

    assert torch.autograd.gradcheck(outputs, (mean, variance))
    assert torch.autograd.gradcheck(maps.logit_entropy, (mean,))
    assert torch.autograd.gradcheck(maps.binary_entropy, (mean.detach().sigmoid().requires_grad_(),))


def test_gradients_are_finite_without_variance():
    mean, variance = torch.linspace(-50, 50, 11, requires_grad=True), torch.zeros(11, requires_grad=True)
    result = maps.uncertainty_maps(mean, variance)
    total = (result.total + result.aleatoric + result.epistemic).sum()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(total, (mean, variance)))


def test_quadrature_gradients_agree_with_the_analytic_slope_near_zero_variance():
    """d/dv E[f(l)] = f''(mean) / 2 at v = 0, for f the entropy."""
    mean = torch.tensor([-2.0, 0.0, 1.0, 4.0])
    variance = torch.zeros(4, requires_grad=True)
    aleatoric, _ = maps.decompose(mean, variance)
    (slope,) = torch.autograd.grad(aleatoric.sum(), variance)
    p = mean.sigmoid()
    second = -(p * (1 - p)) * (1 + mean * (1 - 2 * p))  # of l -> H(sigmoid l), whose slope is -l p (1 - p)
    torch.testing.assert_close(slope * maps.LN2, second / 2, atol=1e-3, rtol=0)


class NormalLogits:
    """Stands in for a posterior: independent normal logits."""

    def __init__(self, scale=None):
        self.scale = scale

    def calibrated_sample(self, generator=None):
        draw = MEAN + VARIANCE.sqrt() * torch.randn(MEAN.shape, generator=generator)
        return draw if self.scale is None else self.scale * draw


def test_monte_carlo_maps_converge_to_the_analytic_ones():
    sampled = maps.monte_carlo_maps(NormalLogits(), 4000, torch.Generator().manual_seed(0))
    probability, total, aleatoric = exact_maps(MEAN, VARIANCE)
    np.testing.assert_allclose(sampled.probability, probability, atol=0.03)
    np.testing.assert_allclose(sampled.total, total / np.log(2), atol=0.05)
    np.testing.assert_allclose(sampled.aleatoric, aleatoric / np.log(2), atol=0.05)
    np.testing.assert_allclose(sampled.epistemic, (total - aleatoric) / np.log(2), atol=0.05)


def test_monte_carlo_maps_use_the_logit_scale():
    plain = maps.monte_carlo_maps(NormalLogits(), 1, torch.Generator().manual_seed(0)).probability
    scaled = maps.monte_carlo_maps(NormalLogits(torch.tensor(2.0)), 1, torch.Generator().manual_seed(0)).probability
    torch.testing.assert_close(scaled, torch.sigmoid(2 * plain.double().logit()).float(), atol=1e-5, rtol=0)


def test_monte_carlo_maps_do_not_exceed_one_by_rounding():
    class Undecided:
        def calibrated_sample(self, generator=None):
            return torch.linspace(-1e-3, 1e-3, 20001)

    result = maps.monte_carlo_maps(Undecided(), 13)  # thirteen times 1/13 of ln 2 is more than ln 2 in float32
    assert result.aleatoric.max() == 1
    assert result.total.max() == 1


def test_bfloat16_input_gives_float32_maps():
    result = maps.uncertainty_maps(MEAN.bfloat16(), VARIANCE.bfloat16())
    expected = maps.uncertainty_maps(MEAN.bfloat16().float(), VARIANCE.bfloat16().float())
    assert result.total.dtype == torch.float32
    assert torch.equal(result.epistemic, expected.epistemic)
