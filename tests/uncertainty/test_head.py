import itertools
import math

import pytest
import torch
from builders import make_decoded

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.inference.model import predict
from ruac.uncertainty import HEADS, BayesianConfig, BayesianHead, HeadConfig, build_head, head_config, total_uncertainty
from ruac.uncertainty.bayesian import straight_through_relu
from ruac.uncertainty.pixel_factor import bounded_shape

CHANNELS, TOKEN_DIM, SIZE = 8, 24, 10
KINDS = list(itertools.product(("signed", "nonnegative"), ("channel", "pixel")))


def pass_of(objects=3, dtype=torch.float32):
    return make_decoded(objects, side=SIZE, channels=CHANNELS, token_dim=TOKEN_DIM, gain=0.5, dtype=dtype)


def make_head(**settings):
    torch.manual_seed(0)
    return BayesianHead(BayesianConfig(**settings), token_dim=TOKEN_DIM, channels=CHANNELS)


@pytest.mark.parametrize(("posterior", "kappa"), KINDS)
def test_shapes(posterior, kappa):
    result = make_head(posterior=posterior, kappa=kappa)(pass_of())
    assert result.mean.shape == result.variance.shape == result.sample().shape == (3, 4, SIZE, SIZE)
    assert result.kl().shape == ()
    assert (result.variance >= 0).all()
    assert result.pixel.shape.shape == (3, CHANNELS if kappa == "channel" else 1, SIZE, SIZE)
    assert result.select(torch.tensor([0, 3, 1])).variance.shape == (3, 1, SIZE, SIZE)


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "none"])
def test_every_head_keeps_the_protocol(kind):
    torch.manual_seed(0)
    head, decoded = build_head(head_config(kind), token_dim=TOKEN_DIM, channels=CHANNELS), pass_of()
    index = torch.tensor([0, 3, 1])
    for training in (True, False):
        posterior = head.train(training)(decoded)
        chosen = posterior.select(index)
        for one, tokens in ((posterior, 4), (chosen, 1)):
            maps = (one.mean, one.variance, *one.calibrated(), one.sample(), *one.scores().values())
            assert {(m.shape, m.dtype) for m in maps} == {((3, tokens, SIZE, SIZE), torch.float32)}
            assert (one.variance >= 0).all()
            assert all(((score >= 0) & (score <= 1)).all() for score in one.scores().values())
            assert one.kl().shape == ()
        assert torch.equal(posterior.mean, decoded.logits) or head.changes_masks
        calibrated = [whole[torch.arange(3), index] for whole in posterior.calibrated()]
        for whole, part in zip(calibrated, chosen.calibrated(), strict=True):
            torch.testing.assert_close(part[:, 0], whole)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.manual_seed(1)
            again = head(pass_of(dtype=torch.bfloat16)).variance
        assert again.dtype == torch.float32


def test_signed_mean_is_the_logits_of_sam_2_before_and_after_training():
    head, decoded = make_head(logit_scale=True), pass_of()
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
    for _ in range(3):
        result = head(decoded)
        assert result.mean is decoded.logits
        mean, variance = result.calibrated()
        optimizer.zero_grad()
        total_uncertainty(mean, variance).mean().backward()
        optimizer.step()
    assert head.log_scale.item() != 0


@pytest.mark.parametrize("posterior", ["signed", "nonnegative"])
def test_shapes_start_at_kappa_init(posterior):
    result = make_head(posterior=posterior, kappa_init=3.0)(pass_of())
    for factor in (result.pixel, result.weight):
        assert (factor.shape - 3).abs().max() < 0.1


def test_nonnegative_factors_and_mean():
    head, decoded = make_head(posterior="nonnegative"), pass_of()
    result = head(decoded)
    assert (result.pixel.mean >= 0).all()
    assert (result.pixel.mean == 0).any()
    foreground, background = result.weight.mean[:, :, 0], -result.weight.mean[:, :, 1]
    assert (foreground >= 0).all()
    assert (background >= 0).all()
    expected = (
        torch.einsum("nkc,nchw->nkhw", foreground, result.pixel.mean)
        - torch.einsum("nkc,nchw->nkhw", background, result.pixel.mean)
        + result.bias[..., None, None]
    )
    torch.testing.assert_close(result.mean, expected)


@pytest.mark.parametrize(("posterior", "kappa"), KINDS)
def test_every_parameter_learns_from_sample_variance_and_kl(posterior, kappa):
    head = make_head(posterior=posterior, kappa=kappa, logit_scale=True)
    result = head(pass_of())
    mean, variance = result.calibrated()
    (result.sample().square().mean() + total_uncertainty(mean, variance).mean() + result.kl()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize(("posterior", "kappa"), KINDS)
def test_bfloat16_autocast_changes_nothing(posterior, kappa):
    head, decoded = make_head(posterior=posterior, kappa=kappa), pass_of(dtype=torch.bfloat16)
    expected = head(decoded)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = head(decoded)
        values = result.mean, result.variance, result.kl(), result.sample(torch.Generator().manual_seed(0))
    references = expected.mean, expected.variance, expected.kl(), expected.sample(torch.Generator().manual_seed(0))
    for value, reference in zip(values, references, strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, reference)


def test_learning_errors_raises_the_variance_where_masks_are_wrong():
    """Errors in the left half only: a few steps of cross-entropy make the left half the more uncertain one."""
    head, decoded = make_head(kappa="pixel"), pass_of()
    decoded.pixel_tokens[:, 0, :, : SIZE // 2] += 3  # what tells the halves apart
    decoded.logits = torch.einsum("nkc,nchw->nkhw", decoded.mask_weights, decoded.pixel_tokens)
    target = (decoded.logits > 0).float()
    target[..., : SIZE // 2] = 1 - target[..., : SIZE // 2]

    def relative_variance():
        ratio = head(decoded).variance / decoded.logits.square().clamp_min(0.1)
        return (ratio[..., : SIZE // 2].mean() / ratio[..., SIZE // 2 :].mean()).item()

    before = relative_variance()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(60):
        result = head(decoded)
        logit = result.mean / (1 + torch.pi / 8 * result.variance).sqrt()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert relative_variance() > 1.5 * before


def test_straight_through_relu():
    x = torch.tensor([-1.3, 0.0, 2.7], requires_grad=True)
    y = straight_through_relu(x)
    assert y.tolist() == x.relu().tolist()
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [1, 1, 1]


def test_bounds_let_a_shape_come_back_but_not_drift_away():
    five = math.log(math.expm1(5.0))
    raw = torch.tensor([-9.0, -9.0, five, five, 20.0, 20.0], requires_grad=True)
    shape = bounded_shape(raw, 0.5, 10.0)
    torch.testing.assert_close(shape, torch.tensor([0.5, 0.5, 5, 5, 10, 10]))
    (slope,) = torch.autograd.grad(shape, raw, torch.tensor([1.0, -1, 1, -1, 1, -1]))
    torch.testing.assert_close(slope / raw.sigmoid(), torch.tensor([0.0, -1, 1, -1, 1, 0]))
    assert torch.equal(bounded_shape(raw.detach(), 0.5, 10.0), shape)


@pytest.mark.parametrize(("init", "loss_sign"), [(0.5, -1), (10.0, 1)])
def test_head_leaves_either_bound(init, loss_sign):
    """At kappa_min a loss that wants less variance, at kappa_max one that wants more, still moves the shape."""
    head, decoded = make_head(kappa_init=init), pass_of()
    with torch.no_grad():
        for layer in (head.pixel_shape[-1], head.weight_shape):
            layer.bias += -0.2 if init == 0.5 else 0.2
    before = head(decoded)
    assert (before.pixel.shape == init).all()
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-2 if init == 0.5 else 1.0)
    for _ in range(100):
        optimizer.zero_grad()
        (-loss_sign * head(decoded).variance.log().mean()).backward()
        optimizer.step()
    assert ((head(decoded).pixel.shape - init) * -loss_sign).mean() > 0.05


def test_logit_scale_starts_at_one_and_never_touches_the_mask():
    head, decoded = make_head(logit_scale=True), pass_of()
    result = head(decoded)
    mean, variance = result.calibrated()
    assert torch.equal(mean, result.mean)
    assert torch.equal(variance, result.variance)
    with torch.no_grad():
        head.log_scale.fill_(0.7)
    assert head(decoded).mean is decoded.logits
    assert (head(decoded).calibrated()[0].abs() >= mean.abs()).all()


@pytest.mark.parametrize(
    ("posterior", "kappa", "count"),
    [
        ("signed", "channel", 17488),
        ("signed", "pixel", 12993),
        ("nonnegative", "channel", 31985),
        ("nonnegative", "pixel", 27490),
    ],
)
def test_parameter_counts_at_the_size_of_sam_2(posterior, kappa, count):
    head = BayesianHead(BayesianConfig(posterior=posterior, kappa=kappa), token_dim=256, channels=32)
    assert sum(p.numel() for p in head.parameters()) == count


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("posterior=gaussian", "posterior: expected signed or nonnegative or .* or none, found 'gaussian'"),
        ("kappa=token", "head.kappa"),
        ("variance=none", "head.variance"),
        ("hidden=0", "head.hidden"),
        ("kappa_min=20", "kappa_min < kappa_max"),
        ("kappa_min=0", "kappa_min"),
        ("kappa_init=11", "head.kappa_init"),
        ("prior_rate=0", "head.prior_rate"),
        ("prior_shape=nan", "head.prior_shape"),
    ],
)
def test_impossible_settings_are_user_errors(override, words):
    with pytest.raises(RuacError, match=words):
        load_config(HeadConfig, overrides=[override])


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "none"])
def test_weights_of_half_precision_are_refused(kind):
    head = build_head(head_config(kind), token_dim=TOKEN_DIM, channels=CHANNELS).bfloat16()
    with pytest.raises(RuacError, match=r"^head: weights are bfloat16, expected float32"):
        predict(pass_of(), head)


@pytest.mark.parametrize("posterior", ["signed", "nonnegative"])
def test_the_full_variance_has_the_terms_that_the_short_one_leaves_out(posterior):
    """Per channel ``(1 + a) (1 + b) - 1`` against ``a b``, a and b the squared coefficients of variation."""
    decoded = pass_of()
    full, short = (make_head(posterior=posterior, variance=kind)(decoded) for kind in ("full", "short"))
    assert torch.equal(full.mean, short.mean)
    draws = torch.stack([full.sample() for _ in range(600)]).var(0)
    assert (draws.mean() / full.variance.mean()).item() == pytest.approx(1, rel=0.1)
    assert (short.variance <= full.variance).all()
    assert short.variance.mean() < 0.9 * full.variance.mean()
