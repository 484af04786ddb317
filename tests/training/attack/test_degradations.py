"""Degradations: each against a reference, their bounds, gradients by finite differences, and that they climb."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import three_objects
from kornia.enhance import adjust_gamma
from kornia.filters import gaussian_blur2d

from ruac.base.errors import RuacError
from ruac.data.augment import MEAN, STD, normalise
from ruac.data.synthetic.weather import koschmieder
from ruac.training.attack import AttackConfig, DegradationConfig, build_attacker
from ruac.training.attack.degradations import DEGRADATION_DIM, LEVELS, PARTS, DegradationAttacker, blurred, degrade
from ruac.training.attack.regions import style_regions

DIM, SIDE = 16, 64
ALL = DegradationConfig(colour=0.3, contrast=0.5, haze=1.5, blur=0.04, tone=0.7, noise=0.1)


def scene(batch=2, side=SIDE):
    rng = torch.Generator().manual_seed(0)
    light = torch.rand(batch, 3, side // 4, side // 4, generator=rng)
    light = 0.1 + 0.8 * F.interpolate(light, size=side, mode="bilinear")
    embedding = torch.randn(batch, DIM, side // 16, side // 16, generator=rng)
    return normalise(light), embedding, *three_objects(batch, side)


def only(part, value, batch=1, regions=1):
    """A residual that asks for one part alone."""
    residual = {name: torch.zeros(batch, regions, count) for name, count in PARTS.items()}
    residual[part] += torch.as_tensor(value, dtype=torch.float32)
    return torch.cat(list(residual.values()), dim=-1)


def light_under(residual, images=None, config=ALL, seed=0):
    images = scene(1)[0] if images is None else images
    torch.manual_seed(seed)
    return degrade(images, torch.ones_like(images[:, :1]), residual, config) * STD + MEAN


def test_a_residual_of_zero_leaves_the_picture_bit_for_bit():
    images, _, masks, valid = scene()
    regions = style_regions(masks, valid, "multi_background")
    assert torch.equal(degrade(images, regions, torch.zeros(2, regions.shape[1], DEGRADATION_DIM), ALL), images)


def test_colour_is_a_matrix_and_contrast_a_gain_about_the_mean():
    light = light_under(torch.zeros(1, 1, DEGRADATION_DIM))
    entries = torch.linspace(-1, 0.2, 9)
    matrix = torch.eye(3) + ALL.colour * entries.view(3, 3)
    expected = torch.einsum("ij,bjhw->bihw", matrix, light)
    torch.testing.assert_close(light_under(only("colour", entries)), expected.clamp(0, 1), atol=1e-5, rtol=0)
    flat = light.mean() + 0.5 * (light - light.mean())
    torch.testing.assert_close(light_under(only("contrast", -1.0)), flat, atol=1e-5, rtol=0)


def test_haze_is_koschmieders_law():
    light = light_under(torch.zeros(1, 1, DEGRADATION_DIM))
    hazy = light_under(only("haze", -0.6))[0].permute(1, 2, 0)
    picture = light[0].permute(1, 2, 0).numpy()
    expected = koschmieder(picture, np.ones(picture.shape[:2]), beta=0.6 * ALL.haze, air=0.8)
    np.testing.assert_allclose(hazy, expected, atol=1e-5)


@pytest.mark.parametrize("amount", [-1.0, 0.5])
def test_the_tone_curve_is_a_gamma(amount):
    light = light_under(torch.zeros(1, 1, DEGRADATION_DIM))
    expected = adjust_gamma(light, gamma=float(np.exp(ALL.tone * amount)))
    torch.testing.assert_close(light_under(only("tone", amount)), expected, atol=1e-5, rtol=0)


def test_noise_has_its_level_and_its_seed():
    grey = normalise(torch.full((1, 3, SIDE, SIDE), 0.5))
    noisy = light_under(only("noise", 0.7), grey)
    assert (noisy - 0.5).std().item() == pytest.approx(0.7 * ALL.noise, rel=0.05)
    assert torch.equal(noisy, light_under(only("noise", 0.7), grey))
    assert not torch.equal(noisy, light_under(only("noise", 0.7), grey, seed=1))


@pytest.mark.parametrize("level", [0, 3])
def test_blur_at_a_level_is_a_gaussian(level):
    light = light_under(torch.zeros(1, 1, DEGRADATION_DIM))
    sigma = LEVELS[level] * ALL.blur * SIDE
    expected = gaussian_blur2d(light, (17, 17), (sigma, sigma))
    found = light_under(only("blur", LEVELS[level] ** 2))
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("variance", [0.1, 1.0, 4.0, 9.0])
def test_blur_has_the_variance_that_was_asked_for(variance):
    point = torch.zeros(1, 1, SIDE + 1, SIDE + 1, dtype=torch.float64)
    point[..., SIDE // 2, SIDE // 2] = 1
    spot = blurred(point, torch.full_like(point, variance), 3.0)[0, 0]
    away = torch.arange(SIDE + 1) - SIDE // 2
    assert spot.sum().item() == pytest.approx(1)
    assert (spot.sum(0) * away**2).sum().item() == pytest.approx(variance, rel=0.03)  # kernels end at 3 sigma


@pytest.mark.parametrize("part", PARTS)
def test_gradients_are_those_of_finite_differences(part):
    torch.manual_seed(3)
    images, _, masks, valid = scene(1, side=16)
    images = images.double()
    regions = style_regions(masks, valid, "multi_background").double()
    config = replace(ALL, blur=0.1)
    start = 0.2 + 0.1 * torch.rand(1, regions.shape[1], DEGRADATION_DIM, dtype=torch.float64)  # not at a kink
    place = list(PARTS).index(part)
    first = sum(list(PARTS.values())[:place])
    probe = torch.randn(1, 3, 16, 16, dtype=torch.float64)

    def loss(values):
        residual = torch.cat([start[..., :first], values, start[..., first + PARTS[part] :]], dim=-1)
        torch.manual_seed(5)  # the same noise
        return (degrade(images, regions, residual, config) * probe).sum()

    values = start[..., first : first + PARTS[part]].clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (values,), eps=1e-5, atol=1e-6, rtol=1e-4)


def test_the_gradient_does_not_vanish_near_no_attack():
    images, _, masks, valid = scene(1)
    regions = style_regions(masks, valid, "multi_background")
    residual = torch.full((1, regions.shape[1], DEGRADATION_DIM), 1e-4, requires_grad=True)
    torch.manual_seed(0)
    (degrade(images, regions, residual, ALL) * torch.randn(images.shape)).sum().backward()
    amounts = residual.grad[0, -1].split(list(PARTS.values()))  # the background
    assert all((each.abs() > 1e-3).all() for name, each in zip(PARTS, amounts, strict=True) if name != "air")


def test_no_weights_go_beyond_the_budget():
    """However large the networks' outputs, amounts stay in [-1, 1], and what they do within the config's numbers."""
    images, embedding, masks, valid = scene()
    attacker = DegradationAttacker(ALL, feature_dim=DIM)
    regions = style_regions(masks, valid, "multi_background")
    with torch.no_grad():
        for parameter in attacker.parameters():
            parameter.normal_(std=1e4)
    assert attacker.residual(embedding, regions).abs().max() <= 1
    shown = attacker(images, embedding, masks, valid) * STD + MEAN
    assert shown.min() >= -1e-5
    assert shown.max() <= 1 + 1e-5
    light = light_under(torch.zeros(1, 1, DEGRADATION_DIM))
    most = {
        "colour": 3 * ALL.colour * light.max(),
        "contrast": ALL.contrast * (light - light.mean()).abs().max(),
        "haze": (1 - np.exp(-ALL.haze)) * 0.8,
        "tone": np.exp(-1 / np.exp(ALL.tone)),  # of c^gamma - c over all c, less than the value that it is taken from
        "noise": 6 * ALL.noise,
        "blur": light.max() - light.min(),
    }
    for part, bound in most.items():
        for sign in (-1.0, 1.0):
            change = (light_under(only(part, sign)) - light).abs().max()
            assert 0 < change <= bound + 1e-5, part


def test_values_beyond_the_screen_before_stay_where_they_were():
    images = scene(1)[0]
    images[0, :, :4] = 4.0
    hazy = degrade(images, torch.ones_like(images[:, :1]), only("contrast", 1.0), ALL)
    assert hazy.max() <= 4.0


def test_a_share_of_zero_treats_the_picture_as_one():
    _, embedding, masks, valid = scene()
    config = replace(ALL, object_share=0.0, init_std=0.5)
    torch.manual_seed(1)
    attacker = DegradationAttacker(config, feature_dim=DIM)
    residual = attacker.residual(embedding, style_regions(masks, valid, "multi_background"))
    assert torch.equal(residual, residual[:, :1].expand_as(residual))
    assert (residual[0] - residual[1]).abs().max() > 1e-3
    apart = DegradationAttacker(replace(config, object_share=1.0), feature_dim=DIM)
    residual = apart.residual(embedding, style_regions(masks, valid, "multi_background"))
    assert (residual[:, 0] - residual[:, 1]).abs().max() > 1e-3


def test_minimising_steps_raise_the_loss_and_paper_parts_have_no_more_parameters():
    images, embedding, masks, valid = scene()
    torch.manual_seed(2)
    config = AttackConfig(use_style=False, use_deformation=False, use_degradations=True, degradations=ALL)
    attacker = build_attacker(config, feature_dim=DIM)
    target = images + 0.01 * torch.randn_like(images)
    optimizer = torch.optim.Adam(attacker.parameters(), lr=3e-3)

    def loss():
        torch.manual_seed(4)
        return (attacker(images, embedding, masks, valid).images - target).square().mean()

    before = loss().item()
    for _ in range(10):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() > 1.5 * before
    paper = build_attacker(AttackConfig(use_deformation=False), feature_dim=DIM)
    assert {name.split(".")[0] for name in paper.state_dict()} == {"style"}


@pytest.mark.parametrize("kind", ["learned", "random"])
def test_under_bf16_and_with_an_image_without_objects(kind):
    images, embedding, masks, valid = scene()
    masks, valid = masks.clone(), valid.clone()
    masks[1], valid[1] = 0, False
    config = AttackConfig(kind=kind, use_deformation=False, use_degradations=True, degradations=ALL)
    attacker = build_attacker(config, feature_dim=DIM)
    attacker.deformation = None
    with torch.autocast("cpu", torch.bfloat16):
        attacked = attacker(images, embedding.bfloat16(), masks, valid)
    assert attacked.images.dtype == torch.float32
    assert attacked.images.isfinite().all()


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (DegradationConfig(blur=0.2), "blur"),
        (DegradationConfig(contrast=1.0), "contrast"),
        (DegradationConfig(noise=-0.1), "noise"),
        (AttackConfig(kind="noise", use_degradations=True), "use_degradations"),
        (AttackConfig(objective="loss"), "objective"),
    ],
)
def test_impossible_budgets_are_named(config, key):
    with pytest.raises(RuacError, match=key):
        config.validate()
