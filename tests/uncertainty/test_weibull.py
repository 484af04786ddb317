import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import Weibull

from ruac.uncertainty import weibull

SHAPES = torch.tensor([0.5, 0.8, 1.0, 2.0, 4.0, 10.0])
SCALES = torch.tensor([0.01, 0.3, 1.0, 2.0, 5.0, 0.7])


def test_moments_match_torch_distributions():
    reference = Weibull(SCALES.double(), SHAPES.double())
    torch.testing.assert_close(weibull.mean(SCALES, SHAPES).double(), reference.mean, rtol=2e-6, atol=0)
    torch.testing.assert_close(weibull.variance(SCALES, SHAPES).double(), reference.variance, rtol=2e-5, atol=0)
    expected = reference.variance / reference.mean**2
    torch.testing.assert_close(weibull.cv2(SHAPES).double(), expected, rtol=2e-5, atol=0)


def test_known_coefficients_of_variation():
    values = weibull.cv2(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(values, torch.tensor([5.0, 1.0, 4 / math.pi - 1], dtype=torch.float64))


def test_cv2_falls_with_the_shape():
    assert (weibull.cv2(torch.linspace(0.5, 10, 1000)).diff() < 0).all()


def test_polynomials_in_float32_are_close_to_gamma_functions_in_float64():
    shapes = torch.logspace(-1, 3, 3001).clamp_min(weibull.LEAST_SHAPE)
    before = shapes.clone()
    expected = weibull.cv2(shapes.double())
    assert torch.equal(shapes, before)
    error = (weibull.cv2(shapes) / expected - 1).abs()
    assert error.max() < 1e-4
    assert error[shapes >= 0.5].max() < 1e-5
    assert torch.equal(weibull.cv2(shapes.clone().requires_grad_()), weibull.cv2(shapes)), "trained as it is used"


@pytest.mark.parametrize(
    ("function", "within"), [(weibull.cv2, 1e-5), (lambda k: weibull.mean(torch.ones_like(k), k), 2e-6)]
)
def test_slopes_in_float32_are_those_of_float64(function, within):
    """Where a slope passes through 0 (of the mean, at 2.17), only its absolute error is small."""
    shapes = torch.logspace(math.log10(0.5), 3, 2001)
    found, expected = (
        (y.double(), torch.autograd.grad(y.sum(), x)[0].double())
        for x in (shapes.clone().requires_grad_(), shapes.double().requires_grad_())
        for y in [function(x)]
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=within, atol=1e-6 if theirs.max() > 0 else 0)


def test_scale_from_mean_inverts_mean_and_keeps_sign():
    means = torch.tensor([-2.0, 0.0, 1e-4, 3.0, -0.5, 7.0])
    torch.testing.assert_close(weibull.mean(weibull.scale_from_mean(means, SHAPES), SHAPES), means)


def test_samples_follow_the_distribution():
    generator = torch.Generator().manual_seed(0)
    for scale, shape in ((0.5, 0.7), (2.0, 4.0)):
        draws = weibull.rsample(torch.full((4000,), scale), torch.tensor(shape), generator)
        assert stats.kstest(draws.numpy(), stats.weibull_min(shape, scale=scale).cdf).pvalue > 0.01


def test_samples_broadcast_and_repeat_with_the_generator():
    scale, shape = torch.ones(2, 3, 4), torch.full((2, 1, 4), 2.0)
    first, second = (weibull.rsample(scale, shape, torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.shape == (2, 3, 4)
    assert torch.equal(first, second)
    assert first.unique().numel() == 24, "channels that share a shape still draw their own noise"


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_samples_and_gradients_are_finite_at_the_ends_of_the_unit_interval(monkeypatch, u):
    monkeypatch.setattr(torch, "rand", lambda size, **kwargs: torch.full(size, u, dtype=kwargs["dtype"]))
    scale, shape = torch.ones(1, requires_grad=True), torch.full((1,), 0.5, requires_grad=True)
    draw = weibull.rsample(scale, shape)
    gradients = torch.autograd.grad(draw, (scale, shape))
    assert all(torch.isfinite(x).all() for x in (draw, *gradients))


@pytest.mark.parametrize(("a", "b"), [(1.0, 3.0), (2.5, 0.7)])
def test_kl_matches_numeric_integration(a, b):
    for scale, shape in ((0.05, 0.8), (0.4, 1.0), (1.0, 2.0), (2.0, 6.0)):
        posterior, prior = stats.weibull_min(shape, scale=scale), stats.gamma(a, scale=1 / b)

        def integrand(q, posterior=posterior, prior=prior):
            x = posterior.ppf(q)
            return posterior.logpdf(x) - prior.logpdf(x)

        expected, _ = integrate.quad(integrand, 0, 1, limit=200)
        value = weibull.kl_gamma(torch.tensor(scale).double(), torch.tensor(shape).double(), a, b)
        assert value.item() == pytest.approx(expected, abs=1e-5)


def test_kl_is_zero_where_the_two_coincide():
    # Weibull with shape 1 and Gamma with shape 1 are both exponential.
    value = weibull.kl_gamma(torch.tensor(1 / 3).double(), torch.tensor(1.0).double(), 1.0, 3.0)
    assert abs(value.item()) < 1e-12


def test_kl_of_a_hard_zero_is_finite_and_leaves_the_scale_alone():
    scale = torch.tensor([0.0, 1e-6, weibull.SCALE_FLOOR, 0.01], requires_grad=True)
    shape = torch.full((4,), 3.0, requires_grad=True)
    value = weibull.kl_gamma(scale, shape)
    slope, shape_slope = torch.autograd.grad(value.sum(), (scale, shape))
    assert torch.isfinite(value).all()
    assert value[0] == value[1] == value[2] > value[3] > 0
    assert slope[0] == slope[1] == 0
    assert -1 / weibull.SCALE_FLOOR < slope[3] < 0
    assert (shape_slope != 0).all()


def test_kl_with_an_exponential_prior_pulls_the_shape_to_one():
    shape = torch.tensor([0.6, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    kl = weibull.kl_gamma(weibull.scale_from_mean(torch.tensor(0.3).double(), shape), shape)
    (slope,) = torch.autograd.grad(kl.sum(), shape)
    assert slope[0] < 0 < slope[2]
    assert abs(slope[1]) < 1e-12


def test_gradients_match_finite_differences():
    scale = SCALES.double().requires_grad_()
    shape = SHAPES.double().requires_grad_()
    for function in (weibull.mean, weibull.variance, weibull.scale_from_mean, weibull.kl_gamma):
        assert torch.autograd.gradcheck(function, (scale, shape))
    assert torch.autograd.gradcheck(weibull.cv2, (shape,))
    assert torch.autograd.gradcheck(
        lambda s, k: weibull.rsample(s, k, torch.Generator().manual_seed(3)), (scale, shape)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_raised_before_the_gamma_functions(dtype):
    shape = SHAPES.to(dtype)
    value = weibull.cv2(shape)
    assert value.dtype == torch.float32
    assert torch.equal(value, weibull.cv2(shape.float()))
    assert weibull.cv2(SHAPES.double()).dtype == torch.float64
    np.testing.assert_allclose(weibull.kl_gamma(SCALES.to(dtype), shape), weibull.kl_gamma(SCALES, SHAPES), rtol=0.05)
