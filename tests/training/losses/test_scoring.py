import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from ruac.training.losses.scoring import cross_entropy_score
from ruac.uncertainty import probability


@pytest.fixture
def pixels():
    generator = torch.Generator().manual_seed(0)
    mean = 3 * torch.randn(500, generator=generator)
    variance = 4 * torch.rand(500, generator=generator)
    return mean, variance, torch.rand(500, generator=generator) < 0.4


def test_score_matches_scikit_learn_on_the_probability_of_the_maps(pixels):
    mean, variance, target = pixels
    p = probability(mean, variance).double().numpy()
    assert cross_entropy_score(mean, variance, target).mean().item() == pytest.approx(log_loss(target, p), rel=1e-5)


def test_score_is_per_pixel_and_accepts_bool_and_float(pixels):
    mean, variance, target = (x.reshape(5, 1, 10, 10) for x in pixels)
    value = cross_entropy_score(mean, variance, target)
    assert value.shape == mean.shape
    assert torch.equal(value, cross_entropy_score(mean, variance, target.float()))
    assert cross_entropy_score(mean.bfloat16(), variance.bfloat16(), target).dtype == torch.float32


def test_score_and_gradients_are_finite_for_confident_pixels():
    mean = torch.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True)
    variance = torch.tensor([0.0, 0.0, 1e6, 1e6], requires_grad=True)
    target = torch.tensor([1, 0, 1, 0])
    value = cross_entropy_score(mean, variance, target)
    gradients = torch.autograd.grad(value.sum(), (mean, variance))
    assert all(torch.isfinite(x).all() for x in (value, *gradients))
    wrong = cross_entropy_score(mean, variance, target)
    assert wrong[0].item() == pytest.approx(1e4), "no clipping: a wrong sure pixel costs its whole logit"
    (slope,) = torch.autograd.grad(wrong[0], mean)
    assert slope[0].item() == pytest.approx(-1)


def test_variance_pays_where_the_mask_is_wrong_and_costs_where_it_is_right():
    mean, target = torch.tensor([2.0, 2.0]), torch.tensor([1, 0])
    variance = torch.ones(2, requires_grad=True)
    (slope,) = torch.autograd.grad(cross_entropy_score(mean, variance, target).sum(), variance)
    assert slope[0] > 0 > slope[1]


def test_score_is_proper():
    """With outcomes of known frequency the best variance is the one whose probability is that frequency."""
    variance = torch.linspace(0, 40, 4001)
    mean, frequency = torch.full_like(variance, 2.0), 0.7
    p = probability(mean, variance)
    hit, miss = (cross_entropy_score(mean, variance, outcome.expand(4001)) for outcome in torch.tensor([1.0, 0.0]))
    expected = frequency * hit + (1 - frequency) * miss
    assert p[expected.argmin()].item() == pytest.approx(frequency, abs=2e-3)


def test_gradients_match_finite_differences():
    mean = torch.tensor(np.linspace(-3, 3, 6), requires_grad=True)
    variance = torch.tensor(np.linspace(0.1, 5, 6), requires_grad=True)
    target = torch.tensor([0, 1, 0, 1, 0, 1])
    assert torch.autograd.gradcheck(lambda m, v: cross_entropy_score(m, v, target), (mean, variance))
