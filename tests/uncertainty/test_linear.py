"""Logits linear in random weights, MC dropout and Laplace, against sampling and explicit matrix algebra."""

import numpy as np
import pytest
import torch
from builders import make_decoded

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.uncertainty import HeadConfig, build_head, head_config
from ruac.uncertainty.laplace import prior_precision
from ruac.uncertainty.linear import LinearPosterior

CHANNELS, TOKEN_DIM, SIZE = 5, 24, 6


def pass_of(objects=3, seed=2):
    return make_decoded(objects, side=SIZE, channels=CHANNELS, token_dim=TOKEN_DIM, seed=seed)


def make_head(posterior, **settings):
    torch.manual_seed(3)
    return build_head(head_config(posterior, **settings), token_dim=TOKEN_DIM, channels=CHANNELS)


def make_posterior(**settings):
    torch.manual_seed(4)
    return LinearPosterior(
        mean=torch.randn(2, 3, 4, 4),
        pixel=torch.randn(2, CHANNELS, 4, 4),
        directions=0.3 * torch.randn(2, 3, 7, CHANNELS),
        **settings,
    )


@pytest.mark.parametrize("biased", [False, True])
def test_variance_is_that_of_draws(biased):
    posterior = make_posterior(offsets=torch.randn(7) if biased else None)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([posterior.sample(generator) for _ in range(4000)])
    assert (draws.var(0) / posterior.variance).mean().item() == pytest.approx(1, abs=0.03)
    assert ((draws.mean(0) - posterior.mean) / (posterior.variance / 4000).sqrt()).abs().max() < 5


def test_select_scale_and_no_directions():
    posterior, index = make_posterior(scale=torch.tensor(2.0)), torch.tensor([2, 0])
    chosen, rows = posterior.select(index), torch.arange(2)
    for whole, part in zip(posterior.calibrated(), chosen.calibrated(), strict=True):
        torch.testing.assert_close(part[:, 0], whole[rows, index])
    assert torch.equal(posterior.calibrated()[0], 2 * posterior.mean)
    torch.testing.assert_close(posterior.calibrated()[1], 4 * posterior.variance)
    assert posterior.kl() == 0
    assert posterior.scores() == {}


def test_dropout_evaluates_the_moments_of_its_passes():
    head, decoded = make_head("dropout", samples=9, dropout=0.3).eval(), pass_of()
    with torch.no_grad():
        head.last.weight.normal_()
        posterior = head(decoded)
        passes = []
        for kept in head.kept:  # one pass at a time, written out
            hidden = torch.nn.functional.gelu(head.first(decoded.mask_tokens)) * kept[: head.config.hidden]
            features = decoded.pixel_tokens * kept[head.config.hidden :, None, None]
            weights = decoded.mask_weights + head.last(hidden)
            passes.append(torch.einsum("nkc,nchw->nkhw", weights, features))
    torch.testing.assert_close(posterior.mean, torch.stack(passes).mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(posterior.variance, torch.stack(passes).var(0), atol=1e-4, rtol=1e-4)
    assert torch.equal(head(decoded).mean, posterior.mean)  # asked again, the same


def test_dropout_masks_keep_what_they_say_and_the_mean():
    head = make_head("dropout", samples=500, dropout=0.3)
    assert (head.kept > 0).float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert head.kept.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(head.kept, make_head("dropout", samples=500, dropout=0.3).kept)
    decoded = pass_of()
    with torch.no_grad():
        assert (head.eval()(decoded).mean - decoded.logits).abs().mean() < 0.1 * decoded.logits.std()


def test_dropout_trains_on_a_pass_of_its_own_per_object():
    head, decoded = make_head("dropout", dropout=0.5).train(), pass_of(8)
    first, second = head(decoded), head(decoded)
    assert not torch.equal(first.mean, second.mean)
    assert (first.variance == 0).all()
    assert torch.equal(first.sample(), first.mean)
    with torch.no_grad():
        head.last.weight.normal_()
    head(decoded).sample().square().mean().backward()
    assert all((p.grad != 0).any() for p in head.parameters())


def test_laplace_is_sam_2_until_something_was_observed():
    head, decoded = make_head("laplace"), pass_of()
    posterior = head(decoded)
    assert torch.equal(posterior.mean, decoded.logits)
    assert (posterior.variance == 0).all()
    assert not head.changes_masks


def test_laplace_variance_is_that_of_explicit_matrix_algebra():
    head, choice = make_head("laplace"), torch.tensor([1, 0, 3])
    curvature = np.zeros((CHANNELS + 1, CHANNELS + 1))
    for seed in (5, 6):
        seen = pass_of(seed=seed)
        head.observe(seen, choice)
        for n in range(3):
            f, w = seen.pixel_tokens[n].double().numpy(), seen.mask_weights[n, choice[n]].double().numpy()
            for y in range(SIZE):
                for x in range(SIZE):
                    phi = np.append(f[:, y, x] * w, 1)
                    p = 1 / (1 + np.exp(-phi[:-1].sum()))
                    curvature += p * (1 - p) * np.outer(phi, phi) / SIZE**2
    np.testing.assert_allclose(head.curvature.numpy(), curvature, rtol=1e-4, atol=1e-5)
    tau = prior_precision(torch.tensor(np.linalg.eigvalsh(curvature)), mode=CHANNELS).item()
    covariance = np.linalg.inv(curvature + tau * np.eye(CHANNELS + 1))

    decoded = pass_of(seed=7)
    variance = head(decoded).variance
    for n, k, y, x in ((0, 0, 0, 0), (2, 3, 1, 4), (1, 2, 5, 5)):
        phi = np.append(decoded.pixel_tokens[n, :, y, x].numpy() * decoded.mask_weights[n, k].numpy(), 1)
        assert variance[n, k, y, x].item() == pytest.approx(phi @ covariance @ phi, rel=1e-3)
    assert torch.equal(head(decoded).mean, decoded.logits)

    answered = head(decoded)
    head.observe(decoded, choice)
    assert torch.equal(answered.variance, variance)  # of what had been seen by then


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_prior_precision_maximises_the_marginal_likelihood(scale):
    curvature = scale * torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mode = 7.0

    def evidence(tau):
        return 0.5 * (len(curvature) * tau.log() - tau * mode - (curvature + tau).log().sum())

    grid = torch.logspace(-6, 2, 20001, dtype=torch.float64)
    best = grid[torch.stack([evidence(tau) for tau in grid]).argmax()].item()
    assert prior_precision(curvature, mode=mode).item() == pytest.approx(best, rel=2e-3)


def test_more_observations_leave_less_variance():
    head, decoded = make_head("laplace"), pass_of()
    variances = []
    for seed in range(10, 40):
        head.observe(pass_of(seed=seed), torch.zeros(3, dtype=torch.int64))
        variances.append(head(decoded).variance.mean().item())
    assert variances[0] > variances[9] > variances[-1] > 0


def test_impossible_settings_are_user_errors():
    for override, words in (
        ("dropout=0", "head.dropout"),
        ("dropout=1", "head.dropout"),
        ("samples=1", "head.samples"),
    ):
        with pytest.raises(RuacError, match=words):
            load_config(HeadConfig, None, ["posterior=dropout", override])
    assert build_head(HeadConfig("none"), token_dim=TOKEN_DIM, channels=CHANNELS) is None
