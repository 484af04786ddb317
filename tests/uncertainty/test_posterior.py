import pytest
import torch
from torch.distributions import Weibull

from ruac.uncertainty import weibull
from ruac.uncertainty.maps import monte_carlo_maps, total_uncertainty
from ruac.uncertainty.posterior import Factor, Posterior, inner_product


def make_posterior(kind="signed", *, objects=2, tokens=4, channels=32, size=12, per_pixel=False, dtype=None, **kwargs):
    """Random factors, of about the size that gives logits from -3 to 3."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    def uniform(*shape):
        return 0.7 + 5 * torch.rand(*shape, generator=generator, dtype=dtype)

    z = normal(objects, channels, size, size)
    pixel_shape = uniform(objects, 1 if per_pixel else channels, size, size)
    bias = None
    if kind == "signed":
        w = 0.25 * normal(objects, tokens, 1, channels)
    else:
        z, bias = z.relu(), normal(objects, tokens)
        w = 0.5 * normal(objects, tokens, 2, channels).relu() * torch.tensor([1.0, -1.0], dtype=dtype)[:, None]
    mean = inner_product(w.sum(2), z, bias)
    weight = Factor(w, uniform(*w.shape))
    return Posterior(mean=mean, pixel=Factor(z, pixel_shape), weight=weight, bias=bias, **kwargs)


@pytest.mark.parametrize("per_pixel", [False, True])
@pytest.mark.parametrize("kind", ["signed", "nonnegative"])
def test_mean_and_variance_match_independent_sampling(kind, per_pixel):
    """The reference draws both terms of the non-negative head with one and the same z, from torch.distributions."""
    torch.manual_seed(1)
    posterior = make_posterior(kind, per_pixel=per_pixel, objects=1, size=6)

    def draw(factor, count):
        shape = factor.shape.expand_as(factor.mean)
        sign, size = factor.mean.sign(), factor.mean.abs().clamp_min(1e-30)
        return sign * Weibull(weibull.scale_from_mean(size, shape), shape).sample((count,))

    # Deviations from the mean; the squared logits of single pixels are heavy-tailed, hence many draws.
    count, rounds = 2000, 8
    first, second = torch.zeros_like(posterior.mean), torch.zeros_like(posterior.mean)
    for _ in range(rounds):
        logits = torch.einsum("rnksc,rnchw->rnkhw", draw(posterior.weight, count), draw(posterior.pixel, count))
        if posterior.bias is not None:
            logits = logits + posterior.bias[..., None, None]
        first += (logits - posterior.mean).sum(0)
        second += (logits - posterior.mean).square().sum(0)
    ratio = second / (count * rounds) / posterior.variance
    assert ratio.mean().item() == pytest.approx(1, abs=0.02)
    assert ratio.std() < 0.04
    assert (ratio - 1).abs().max() < 0.2
    z_score = first / (count * rounds * posterior.variance).sqrt()
    assert z_score.abs().max() < 4.5


@pytest.mark.parametrize("kind", ["signed", "nonnegative"])
def test_own_samples_have_the_stated_moments(kind):
    posterior = make_posterior(kind, size=6)
    generator = torch.Generator().manual_seed(2)
    draws = torch.stack([posterior.sample(generator) for _ in range(1500)])
    assert (draws.var(0) / posterior.variance).mean().item() == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(draws.mean(0).mean(), posterior.mean.mean(), atol=0.02, rtol=0)


def test_signed_variance_is_the_formula_written_out():
    posterior = make_posterior(dtype=torch.float64)
    f, w = posterior.pixel.mean[:, None], posterior.weight.mean.squeeze(2)[..., None, None]  # [N,1,c,h,w], [N,K,c,1,1]
    cv_f = weibull.cv2(posterior.pixel.shape)[:, None]
    cv_w = weibull.cv2(posterior.weight.shape).squeeze(2)[..., None, None]
    expected = (f**2 * w**2 * (cv_f + cv_w + cv_f * cv_w)).sum(2)
    torch.testing.assert_close(posterior.variance, expected)


def test_full_variance_predicts_sampled_entropy_better_than_short():
    errors = {}
    for full in (True, False):
        posterior = make_posterior(size=8, full_variance=full)
        sampled = monte_carlo_maps(posterior, 400, torch.Generator().manual_seed(3)).total
        analytic = total_uncertainty(posterior.mean, posterior.variance)
        errors[full] = (analytic - sampled).abs().mean().item()
        assert torch.corrcoef(torch.stack([analytic.flatten(), sampled.flatten()]))[0, 1] > 0.9
    assert errors[True] < 0.05
    assert errors[True] < 0.7 * errors[False]


def test_short_variance_is_smaller_and_keeps_the_product_of_variances():
    full, short = make_posterior(), make_posterior(full_variance=False)
    assert (short.variance < full.variance).all()
    expected = torch.einsum("nkc,nchw->nkhw", short.weight.variance().sum(2), short.pixel.variance())
    torch.testing.assert_close(short.variance, expected)


def test_zero_factors_stay_exactly_zero():
    posterior = make_posterior("nonnegative")
    draw = posterior.pixel.sample(torch.Generator().manual_seed(0))
    zero = posterior.pixel.mean == 0
    assert zero.any()
    assert (draw[zero] == 0).all()
    assert (draw[~zero] > 0).all()
    assert (posterior.pixel.variance()[zero] == 0).all()


def test_samples_keep_the_sign_of_the_factor():
    posterior = make_posterior()
    for factor in (posterior.pixel, posterior.weight):
        assert torch.equal(factor.sample(torch.Generator().manual_seed(0)).sign(), factor.mean.sign())


@pytest.mark.parametrize("kind", ["signed", "nonnegative"])
def test_select_takes_one_token_of_each_object(kind):
    posterior = make_posterior(kind, objects=3)
    index = torch.tensor([2, 0, 3])
    one, rows = posterior.select(index), torch.arange(3)
    assert one.mean.shape == (3, 1, 12, 12)
    assert torch.equal(one.mean[:, 0], posterior.mean[rows, index])
    torch.testing.assert_close(one.variance[:, 0], posterior.variance[rows, index])
    draws = torch.stack([one.sample(torch.Generator().manual_seed(i)) for i in range(300)])
    z_score = (draws.mean(0) - one.mean) / (one.variance / 300).sqrt()
    assert z_score.abs().max() < 6


def test_kl_sums_channels_and_averages_the_rest():
    posterior = make_posterior(objects=2, tokens=3, channels=5, size=4, prior=(1.5, 2.0))
    expected = 0.0
    for n in range(2):
        for factor, count in ((posterior.pixel, 2 * 16), (posterior.weight, 2 * 3)):
            scale = weibull.scale_from_mean(factor.mean[n].abs(), factor.shape[n])
            expected += weibull.kl_gamma(scale, factor.shape[n], 1.5, 2.0).sum() / count
    torch.testing.assert_close(posterior.kl(), expected)


def test_kl_with_one_shape_per_pixel_still_counts_every_channel():
    shared = make_posterior(per_pixel=True)
    spread = Factor(shared.pixel.mean, shared.pixel.shape.expand_as(shared.pixel.mean))
    explicit = Posterior(mean=shared.mean, pixel=spread, weight=shared.weight)
    torch.testing.assert_close(shared.kl(), explicit.kl())


def test_a_batch_without_objects_has_no_divergence():
    posterior = make_posterior(objects=0)
    assert posterior.kl() == 0
    assert posterior.variance.shape == (0, 4, 12, 12)


def test_calibrated_scales_mean_and_deviation_only():
    plain, scaled = make_posterior(), make_posterior(scale=torch.tensor(3.0))
    mean, variance = scaled.calibrated()
    torch.testing.assert_close(mean, 3 * plain.mean)
    torch.testing.assert_close(variance, 9 * plain.variance)
    assert torch.equal(scaled.mean, plain.mean)
    assert plain.calibrated()[0] is plain.mean


@pytest.mark.parametrize("kind", ["signed", "nonnegative"])
def test_larger_shapes_lower_variance_and_entropy(kind):
    posterior = make_posterior(kind, size=4)
    shapes = posterior.pixel.shape.requires_grad_(), posterior.weight.shape.requires_grad_()
    total = total_uncertainty(posterior.mean, posterior.variance)
    for output in (posterior.variance, total):
        for gradient in torch.autograd.grad(output.sum(), shapes, retain_graph=True):
            assert (gradient <= 0).all()
            assert (gradient < 0).any()


def test_gradients_match_finite_differences():
    base = make_posterior(objects=1, tokens=2, channels=3, size=2, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for f in (base.pixel, base.weight) for x in (f.mean, f.shape)]

    def outputs(z, z_shape, w, w_shape):
        posterior = Posterior(mean=base.mean, pixel=Factor(z, z_shape), weight=Factor(w, w_shape))
        return posterior.variance, posterior.sample(torch.Generator().manual_seed(4)), posterior.kl()

    assert torch.autograd.gradcheck(outputs, inputs)


def test_lazy_variance_stays_in_float32_under_autocast():
    posterior = make_posterior(size=4)
    expected, draw = posterior.variance, posterior.sample(torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(posterior.variance, expected)
        assert torch.equal(posterior.sample(torch.Generator().manual_seed(0)), draw)
