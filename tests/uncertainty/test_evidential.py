"""The evidential head against scipy's Student t, sampling and finite differences."""

import numpy as np
import pytest
import torch
from builders import make_decoded
from scipy import stats

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.uncertainty import HeadConfig, build_head, head_config
from ruac.uncertainty.evidential import (
    FLOOR,
    EvidentialLossConfig,
    EvidentialPosterior,
    evidential_loss,
    nig_nll,
)

CHANNELS, TOKEN_DIM, SIZE = 8, 24, 6


def make_posterior(shape=(2, 3, 4, 5), dtype=torch.float64):
    torch.manual_seed(1)
    nu, excess, beta = (torch.rand(shape, dtype=dtype) * 3 + 0.05 for _ in range(3))
    raw = torch.log(torch.expm1(excess))
    return EvidentialPosterior(torch.randn(shape, dtype=dtype), nu, 1 + excess, beta, raw)


def pass_of(objects=3):
    return make_decoded(objects, side=SIZE, channels=CHANNELS, token_dim=TOKEN_DIM)


def make_head():
    torch.manual_seed(3)
    return build_head(head_config("evidential"), token_dim=TOKEN_DIM, channels=CHANNELS)


def test_likelihood_is_that_of_the_marginal_student_t():
    posterior = make_posterior()
    target = torch.rand(posterior.gamma.shape, dtype=torch.float64)
    gamma, nu, alpha, beta = (getattr(posterior, name).numpy() for name in ("gamma", "nu", "alpha", "beta"))
    marginal = stats.t(df=2 * alpha, loc=gamma, scale=np.sqrt(beta * (1 + nu) / (nu * alpha)))
    np.testing.assert_allclose(nig_nll(posterior, target).numpy(), -marginal.logpdf(target.numpy()), rtol=1e-10)
    np.testing.assert_allclose(posterior.variance.numpy()[alpha > 1.2], marginal.var()[alpha > 1.2], rtol=1e-10)


def test_predictive_variance_is_that_of_draws():
    nu, alpha, beta = 1.5, 6.0, 2.0
    rng = np.random.default_rng(0)
    s2 = stats.invgamma(alpha, scale=beta).rvs(400_000, random_state=rng)
    y = rng.normal(rng.normal(0.3, np.sqrt(s2 / nu)), np.sqrt(s2))
    values = (torch.tensor([v], dtype=torch.float64) for v in (0.3, nu, alpha, beta, 0.0))
    assert y.var() == pytest.approx(EvidentialPosterior(*values).variance.item(), rel=0.02)


def test_the_loss_is_written_out_and_its_gradient_is_that_of_finite_differences():
    base, config = make_posterior((1, 1, 2, 2)), EvidentialLossConfig(weight=1.0, evidence=0.3, ur=0.2)
    target = torch.tensor([[[[0.0, 1.0], [0.4, 1.0]]]], dtype=torch.float64)
    error = (target - base.gamma).abs()
    inverse = torch.log(torch.exp(base.alpha - 1) - 1)
    expected = nig_nll(base, target) + 0.3 * error * (2 * base.nu + base.alpha) - 0.2 * error * inverse
    torch.testing.assert_close(evidential_loss(base, target, config), expected)

    def loss(gamma, nu, raw, beta):
        alpha = 1 + torch.nn.functional.softplus(raw)
        return evidential_loss(EvidentialPosterior(gamma, nu, alpha, beta, raw), target, config)

    inputs = [x.clone().requires_grad_() for x in (base.gamma, base.nu, base.raw_alpha, base.beta)]
    assert torch.autograd.gradcheck(loss, inputs)


def test_only_the_ur_term_teaches_where_there_is_no_evidence():
    slopes = {}
    for ur in (0.0, 0.5):
        raw = torch.tensor([-30.0], requires_grad=True)
        alpha = 1 + torch.nn.functional.softplus(raw) + FLOOR
        one = torch.ones(1)
        loss = evidential_loss(
            EvidentialPosterior(0 * one, one, alpha, one, raw), one, EvidentialLossConfig(1.0, 0.01, ur)
        )
        (slopes[ur],) = torch.autograd.grad(loss, raw)
    assert abs(slopes[0.0].item()) < 1e-9
    assert slopes[0.5].item() == pytest.approx(-0.5)


def test_masks_start_as_those_of_sam_2():
    head, decoded = make_head(), pass_of()
    with torch.no_grad():
        posterior = head(decoded)
    torch.testing.assert_close(posterior.gamma, 0.5 + decoded.logits / head.SPAN, atol=1e-5, rtol=1e-5)
    clear = decoded.logits.abs() > 1e-3
    assert torch.equal((posterior.mean > 0)[clear], (decoded.logits > 0)[clear])
    assert head.changes_masks
    assert sum(p.numel() for p in head.parameters()) == 4 * (CHANNELS + 1)


def test_its_own_score_orders_pixels_by_the_predictive_variance():
    posterior = make_posterior()
    (score,) = posterior.scores().values()
    assert ((score >= 0) & (score <= 1)).all()
    assert torch.equal(score.flatten().argsort(), posterior.variance.flatten().argsort())
    mean, variance = posterior.calibrated()
    inside = (posterior.gamma > 0.01) & (posterior.gamma < 0.99)
    torch.testing.assert_close(mean.sigmoid()[inside], posterior.gamma[inside])
    assert (variance == 0).all()


def test_select_and_extreme_tokens():
    head, decoded = make_head(), pass_of()
    index = torch.tensor([3, 0, 2])
    posterior = head(decoded)
    chosen, rows = posterior.select(index), torch.arange(3)
    assert torch.equal(chosen.variance[:, 0], posterior.variance[rows, index])
    assert torch.equal(chosen.mean[:, 0], posterior.mean[rows, index])
    decoded.pixel_tokens *= 1e3
    loss = evidential_loss(head(decoded), torch.ones(3, 4, SIZE, SIZE), EvidentialLossConfig(1.0))
    loss.mean().backward()
    assert loss.isfinite().all()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_steps_on_its_loss_raise_the_variance_where_the_mask_is_wrong():
    head, decoded = make_head(), pass_of(8)
    decoded.pixel_tokens[:, 0, :, : SIZE // 2] += 3  # what tells the halves apart
    decoded.mask_weights[:, :, 0] = 0.5
    torch.manual_seed(4)
    target = torch.full((8, 4, SIZE, SIZE), 0.0)
    target[..., : SIZE // 2] = torch.randint(2, (8, 4, SIZE, SIZE // 2)).float()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        evidential_loss(head(decoded), target, EvidentialLossConfig(1.0)).mean().backward()
        optimizer.step()
    variance = head(decoded).variance.detach()
    assert variance[..., : SIZE // 2].median() > 2 * variance[..., SIZE // 2 :].median()


def test_settings_that_do_not_fit_are_user_errors():
    with pytest.raises(RuacError, match=r"logit_scale' belongs to posterior signed or .*, not to evidential"):
        load_config(HeadConfig, None, ["posterior=evidential", "logit_scale=true"])
    with pytest.raises(RuacError, match=r"loss\.evidential\.ur"):
        load_config(EvidentialLossConfig, None, ["ur=-1"])


def test_draws_have_the_spread_of_the_expectation_alone():
    """``Var mu = beta / (nu (alpha - 1))``, of a posterior narrow enough for no draw to be cut off."""
    shape = (1, 1, 1, 200_000)
    nu, alpha, beta = 3.0, 2.5, 0.005
    parameters = (torch.full(shape, value) for value in (0.45, nu, alpha, beta))
    draws = EvidentialPosterior(*parameters, torch.zeros(shape)).sample(torch.Generator().manual_seed(0)).sigmoid()
    assert draws.mean().item() == pytest.approx(0.45, abs=4e-4)
    assert draws.var().item() == pytest.approx(beta / (nu * (alpha - 1)), rel=0.02)
