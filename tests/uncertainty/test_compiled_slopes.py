"""Variance and divergence of a head that learns, compiled with their slopes, against whole tensors in float64."""

import numpy as np
import pytest
import torch
from builders import make_decoded
from scipy.special import digamma, gamma, gammaln

from ruac.uncertainty import BayesianConfig, BayesianHead, compiled_slopes
from ruac.uncertainty.compiled_slopes import Divergence, WeightedSquares, moments
from ruac.uncertainty.pixel_factor import MOST
from ruac.uncertainty.posterior import Factor

OBJECTS, CHANNELS, SIDE, TOKENS = 3, 11, 7, 2  # no multiple of what is taken at once


def drawn(*, last: bool):
    """mean, shape, spread and still, with zeros and scales below the floor."""
    torch.manual_seed(0)
    size = (OBJECTS, CHANNELS, SIDE, SIDE)
    mean, shape = 2 * torch.randn(size), 0.5 + 9.5 * torch.rand(size)
    mean[0, :2], mean[1, 3], mean[1, 4] = 0, 5e-4, -5e-4
    shape[2, 0], shape[2, 1] = 0.5, 10
    if last:
        mean, shape = (x.contiguous(memory_format=torch.channels_last) for x in (mean, shape))
    return [mean, shape, torch.rand(OBJECTS, TOKENS, CHANNELS), torch.rand(OBJECTS, TOKENS, CHANNELS)]


def answer(function, tensors, grad, dtype):
    tensors = [x.to(dtype).clone().requires_grad_() for x in tensors]
    out = function(*tensors)
    return [out, *torch.autograd.grad(out, tensors, grad.to(dtype))]


@pytest.fixture(params=[1, 3], ids=lambda n: f"{n} threads", autouse=True)
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels last"])
def test_variance_and_slopes_are_those_of_whole_tensors(last):
    tensors, grad = drawn(last=last), torch.randn(OBJECTS, TOKENS, SIDE, SIDE)
    known = moments(0.5, 10.0)
    found = answer(lambda *x: WeightedSquares.apply(*x, known), tensors, grad, torch.float32)
    expected = answer(lambda m, k, *w: Factor(m, k).weighted_squares(*w), tensors, grad, torch.float64)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6 * theirs.abs().max().item())


@pytest.mark.parametrize("prior", [(1.0, 3.0), (1.7, 0.4)])
@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels last"])
def test_divergence_and_slopes_are_those_of_whole_tensors(last, prior):
    tensors, grad, known = drawn(last=last)[:2], torch.tensor(0.3), moments(0.5, 10.0)
    found = answer(lambda m, k: Divergence.apply(m, k, *prior, known), tensors, grad, torch.float32)
    expected = answer(lambda m, k: Factor(m, k).kl(*prior).sum(), tensors, grad, torch.float64)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-6, atol=0)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    assert (found[1][0, :2] == 0).all(), "a hard zero is left where it is"
    assert (found[1][1, 3:5] == 0).all(), "as is what lies below the floor"


@pytest.mark.parametrize("most", [10.0, MOST])
def test_polynomials_are_close(most):
    known = moments(0.5, most)
    shape = np.geomspace(0.5, most, 2000)
    x = 1 / shape
    u = known.place[0] / (1 + shape) + known.place[1]
    assert np.abs(u).max() < 1 + 1e-5
    cv2 = np.expm1(gammaln(1 + 2 * x) - 2 * gammaln(1 + x))
    slope = -2 * (1 + cv2) * (digamma(1 + 2 * x) - digamma(1 + x)) / x
    for coefficients, expected in ((known.cv2, cv2 / x**2), (known.cv2_slope, slope), (known.mean, gamma(1 + x))):
        np.testing.assert_allclose(np.polyval(coefficients, u), expected, rtol=1e-5)
    np.testing.assert_allclose(np.polyval(known.digamma, u), digamma(1 + x), atol=2e-6)


def trained_head(**settings):
    torch.manual_seed(0)
    head = BayesianHead(BayesianConfig(**settings), token_dim=24, channels=8)
    with torch.no_grad():
        head.pixel_shape[-1].weight.mul_(2000)  # shapes from one bound to the other
    return head


def slopes(head, decoded):
    decoded = decoded.detach()
    tensors = [x.requires_grad_() for x in (decoded.pixel_tokens, decoded.mask_tokens, decoded.mask_weights)]
    posterior = head(decoded)
    chosen = posterior.select(torch.tensor([1, 0, 3]))
    loss = (chosen.variance + 0.1).log().mean() + (posterior.variance + 0.1).sqrt().mean() + 0.1 * posterior.kl()
    loss.backward()
    found = {name: p.grad.clone() for name, p in head.named_parameters() if p.grad is not None}
    head.zero_grad()
    return loss.detach(), found | {str(n): x.grad for n, x in enumerate(tensors) if x.grad is not None}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"variance": "short"},
        {"kappa": "pixel"},
        {"kappa_pool": 2},
        {"posterior": "nonnegative"},
        {"kappa_min": 0.3},
    ],
    ids=str,
)
def test_a_head_learns_the_same(settings, monkeypatch):
    """As with whole-tensor operations in float32, to which heads of other bounds fall back."""
    head, decoded = trained_head(**settings), make_decoded(3, side=9, channels=8, token_dim=24, gain=0.5)
    used = []
    for which in (compiled_slopes.WeightedSquares, compiled_slopes.Divergence):
        monkeypatch.setattr(which, "forward", count(which.forward, used))
    loss, found = slopes(head, decoded)
    assert bool(used) == ("kappa_min" not in settings)
    monkeypatch.setattr("ruac.uncertainty.pixel_factor.LEAST", MOST)
    used.clear()
    plain, expected = slopes(head, decoded)
    assert not used
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=0)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=2e-4, atol=2e-5 * value.abs().max().item(), msg=name)


def count(function, used):
    def counted(*arguments):
        used.append(1)
        return function(*arguments)

    return staticmethod(counted)


def test_features_of_a_frozen_model_get_no_slope():
    head, decoded = trained_head(), make_decoded(2, side=6, channels=8, token_dim=24, gain=0.5)
    posterior = head(decoded.detach())
    (posterior.variance.mean() + posterior.kl()).backward()
    assert all((p.grad != 0).any() for p in head.pixel_shape.parameters())
    assert decoded.pixel_tokens.grad is None
