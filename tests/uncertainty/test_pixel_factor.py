"""Shapes that are read when asked for, and the compiled way to the variance against whole tensors."""

import pytest
import torch
import torch.nn.functional as F
from builders import make_decoded
from scipy.special import gamma

from ruac.base.errors import RuacError
from ruac.uncertainty import BayesianConfig, BayesianHead, compiled, weibull
from ruac.uncertainty.compiled import cv2_table
from ruac.uncertainty.pixel_factor import MOST, PixelFactor, ShapeReader
from ruac.uncertainty.posterior import Factor, Posterior


def make_head(**settings):
    torch.manual_seed(0)
    head = BayesianHead(BayesianConfig(**settings), token_dim=24, channels=8)
    with torch.no_grad():
        head.pixel_shape[-1].weight.mul_(2000)  # shapes from one bound to the other
    return head


def pass_of(objects=3, side=10):
    return make_decoded(objects, side=side, channels=8, token_dim=24, gain=0.5)


def whole(posterior):
    """The same posterior with factors that are tensors, in double precision: Gamma functions and no table."""
    pixel, weight = (Factor(f.mean.double(), f.shape.double()) for f in (posterior.pixel, posterior.weight))
    return Posterior(mean=posterior.mean, pixel=pixel, weight=weight, full_variance=posterior.full_variance)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("side", [8, 11])
@pytest.mark.parametrize(
    "settings",
    [{}, {"kappa": "pixel"}, {"variance": "short"}, {"kappa_pool": 2}, {"kappa_pool": 3, "posterior": "nonnegative"}],
    ids=str,
)
@torch.no_grad()
def test_the_compiled_variance_is_that_of_whole_tensors(settings, side, threads):
    before = torch.get_num_threads()
    for objects in (1, 3):
        decoded = pass_of(objects, side)
        for pixels in (decoded.pixel_tokens, decoded.pixel_tokens.contiguous(memory_format=torch.channels_last)):
            decoded.pixel_tokens = pixels
            posterior = make_head(**settings)(decoded)
            shapes = posterior.pixel.shape
            assert shapes.min() == 0.5
            assert shapes.max() > 5
            try:
                torch.set_num_threads(threads)
                found = posterior.variance
            finally:
                torch.set_num_threads(before)
            torch.testing.assert_close(found, whole(posterior).variance.float(), rtol=2e-5, atol=0)


@torch.no_grad()
def test_objects_are_read_in_groups(monkeypatch):
    posterior = make_head()(pass_of(5))
    expected = posterior.variance
    monkeypatch.setattr("ruac.uncertainty.pixel_factor._GROUP", 2 * 8 * 100)
    torch.testing.assert_close(posterior.variance, expected, rtol=1e-5, atol=0)


def test_nothing_is_read_before_it_is_asked_for():
    head, read = make_head(), []
    head.pixel_shape.register_forward_hook(lambda *_: read.append(1))
    with torch.no_grad():
        chosen = head(pass_of()).select(torch.tensor([1, 2, 3]))
        assert not read
        chosen.calibrated()
        assert len(read) == 1
    trained = head(pass_of())
    trained.sample(), trained.variance, trained.kl()
    assert len(read) == 2, "with gradients the shapes are read once"


def test_table_holds_the_coefficient_of_variation():
    for least, most in ((0.5, 10.0), (0.1, 3.0), (1.0, MOST)):
        first, scale, values = cv2_table(least, most)
        x = first + torch.arange(len(values), dtype=torch.float64) / scale
        shape = torch.logaddexp(x, torch.zeros_like(x)).clamp(least, most)
        if most < 100:  # beyond, two equal numbers are subtracted
            expected = torch.from_numpy(gamma(1 + 2 / shape.numpy()) / gamma(1 + 1 / shape.numpy()) ** 2 - 1)
            torch.testing.assert_close(torch.from_numpy(values).double(), expected, rtol=1e-6, atol=0)
        between = (x[1:] + x[:-1]) / 2
        lines = torch.from_numpy((values[1:] + values[:-1]) / 2).double()
        error = (lines / weibull.cv2(torch.logaddexp(between, torch.zeros_like(between))) - 1).abs()
        assert error.max() < 2e-4
        assert error[between > 0].max() < 1e-5


@torch.no_grad()
def test_what_is_no_number_stays_none():
    decoded = pass_of(1, 8)
    weights = torch.ones(1, 1, 8)
    raw = torch.zeros(1, 8, 8, 8)
    raw[0, 3, 2, 5] = float("nan")
    raw[0, 0, 0, 0], raw[0, 1, 0, 1] = float("inf"), -float("inf")
    found = compiled.weighted_squares(decoded.pixel_tokens, raw, 1, cv2_table(0.5, 10.0), weights, weights)[0, 0]
    assert found.isnan().nonzero().tolist() == [[2, 5]]
    squares = decoded.pixel_tokens[0].square()
    cv2 = weibull.cv2(F.softplus(raw[0]).clamp(0.5, 10))
    torch.testing.assert_close(found, (squares * (cv2 + 1)).sum(0), rtol=1e-5, atol=0, equal_nan=True)


def test_shapes_of_squares_are_read_off_their_mean():
    """Three pixels a side: squares of 2 x 2, and what is left of those at the end."""
    network = torch.nn.Conv2d(1, 1, 1, bias=False)
    torch.nn.init.ones_(network.weight)
    features = torch.tensor([[1.0, 3.0, 5.0], [2.0, 2.0, 7.0], [4.0, 6.0, 9.0]])[None, None]
    shape = PixelFactor(features, features, ShapeReader(network, 0.5, 10.0, pool=2)).shape
    means = torch.tensor([[2.0, 2.0, 6.0], [2.0, 2.0, 6.0], [5.0, 5.0, 9.0]])
    torch.testing.assert_close(shape[0, 0], F.softplus(means))


def test_pooled_shapes_learn_and_agree_with_samples():
    head = make_head(kappa_pool=2)
    posterior = head(pass_of(1, 6))
    draws = torch.stack([posterior.sample(torch.Generator().manual_seed(i)) for i in range(2000)])
    assert (draws.var(0) / posterior.variance).mean().item() == pytest.approx(1, abs=0.05)
    (posterior.variance.mean() + posterior.kl()).backward()
    assert all((p.grad != 0).any() for p in head.pixel_shape.parameters())


def test_no_pool_of_nothing():
    with pytest.raises(RuacError, match="kappa_pool"):
        BayesianConfig(kappa_pool=0).validate()
