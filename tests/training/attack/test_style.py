import math

import pytest
import torch
from builders import three_objects

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.training.attack.regions import style_regions
from ruac.training.attack.style import (
    STYLE_VARIANTS,
    RandomStyle,
    StyleAttacker,
    StyleConfig,
    region_statistics,
    restyle,
)

DIM = 16


def scene(batch=2, size=64, seed=0):
    """Images, embedding, three objects (two overlapping, the third padding in the last image), valid."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, size, size, generator=rng).clamp(-2.1, 2.6)
    embedding = torch.randn(batch, DIM, size // 16, size // 16, generator=rng)
    return images, embedding, *three_objects(batch, size)


def zero(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module


@pytest.mark.parametrize("variant", STYLE_VARIANTS)
def test_a_zeroed_attacker_returns_the_image_bit_for_bit(variant):
    images, *rest = scene()
    images[0, :, :2] = 3.7  # beyond the limit already
    images[1, :, 20:30, 20:30] = 0.3  # flatter than min_std
    attacker = zero(StyleAttacker(StyleConfig(variant=variant), feature_dim=DIM))
    assert torch.equal(attacker(images, *rest), images)


def test_a_new_attacker_is_close_to_the_identity():
    torch.manual_seed(0)
    images, *rest = scene()
    change = (StyleAttacker(StyleConfig(), feature_dim=DIM)(images, *rest) - images).abs()
    assert 0 < change.mean() < 0.03


def test_regions_of_each_variant():
    _, _, masks, valid = scene()
    union = masks.amax(1, keepdim=True)
    regions = {variant: style_regions(masks, valid, variant) for variant in STYLE_VARIANTS}
    assert torch.equal(regions["global"], torch.ones_like(union))
    assert torch.equal(regions["single"], union)
    assert torch.equal(regions["multi"], masks)
    assert torch.equal(regions["multi_background"], torch.cat([masks, 1 - union], dim=1))
    assert torch.equal(regions["graph"], regions["multi_background"])


def test_statistics_match_torch_and_small_regions_take_the_image():
    images, _, masks, valid = scene(size=64)
    images = 0.2 * images + 1.5
    masks[0, 2] = 0
    masks[0, 2, 10, 10] = 1
    regions = style_regions(masks, valid, "multi")
    mean, std = region_statistics(images, regions, min_pixels=512)  # 2 px at 64
    inside = images[0][:, masks[0, 1].bool()]
    torch.testing.assert_close(mean[0, 1], inside.mean(1))
    torch.testing.assert_close(std[0, 1], inside.std(1, correction=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mean[0, 2], images[0].mean((1, 2)))
    torch.testing.assert_close(std[0, 2], images[0].std((1, 2), correction=0), rtol=1e-5, atol=1e-6)


def test_min_pixels_is_the_same_share_of_every_image_size():
    for size, pixels, takes_the_image in ((64, 1, False), (1024, 256, False), (1024, 99, True), (256, 6, True)):
        images = torch.zeros(1, 3, size, size)
        regions = torch.zeros(1, 1, size, size)
        regions.view(-1)[:pixels] = 1
        images[:, :] = regions
        mean, _ = region_statistics(images, regions, min_pixels=100)
        assert (mean[0, 0, 0] < 0.5).item() is takes_the_image


def test_restyle_is_adain_on_disjoint_regions():
    images, _, masks, valid = scene()
    masks[:, 1] *= 1 - masks[:, 0]
    regions = style_regions(masks, valid, "multi_background")
    config = StyleConfig(limit=100.0)
    residual = 0.6 * torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(1)) - 0.3
    result = restyle(images, regions, residual, config)
    mean, std = region_statistics(images, regions, config.min_pixels)
    new_mean = mean * (1 + 0.2 * (2 * residual[..., :3].sigmoid() - 1)) + 0.3 * residual[..., :3].tanh()
    new_std = std * (1 + 0.5 * (2 * residual[..., 3:].sigmoid() - 1))
    for b in range(2):
        for r in range(4):
            where = regions[b, r].bool()
            if not where.any():
                continue
            expected = (images[b][:, where] - mean[b, r, :, None]) / std[b, r, :, None] * new_std[b, r, :, None]
            torch.testing.assert_close(result[b][:, where], expected + new_mean[b, r, :, None], rtol=1e-4, atol=1e-5)


def test_overlapping_regions_are_averaged():
    images, _, masks, valid = scene()
    config, regions = StyleConfig(limit=100.0), style_regions(masks, valid, "multi")
    residual = 0.3 * torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(2)).clamp(-1, 1)
    alone = [restyle(images, regions[:, k : k + 1], residual[:, k : k + 1], config) for k in range(2)]
    both = (masks[:, 0] * masks[:, 1]).bool()[:, None].expand_as(images)
    assert both.any()
    torch.testing.assert_close(
        restyle(images, regions, residual, config)[both], (alone[0] + alone[1])[both] / 2, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_bounds_hold_with_huge_parameters(sign):
    images, embedding, masks, valid = scene()
    images = 0.3 * images + 0.8
    masks[:, 1] *= 1 - masks[:, 0]
    attacker = StyleAttacker(StyleConfig(), feature_dim=DIM).eval()
    with torch.no_grad():
        attacker.mlp[-1].bias.fill_(sign * 1e6)
    result = attacker(images, embedding, masks, valid)
    regions = style_regions(masks, valid, "graph")
    mean, std = region_statistics(images, regions, 0)
    new_mean, new_std = region_statistics(result, regions, 0)
    present = regions.flatten(2).sum(-1) > 0
    bound = mean.abs() * 0.2 * math.tanh(0.15) + 0.3 * math.tanh(0.3)
    moved, ratio = sign * (new_mean - mean), new_std / std
    assert (moved <= bound + 1e-5)[present].all()
    assert (moved >= 0.9 * bound)[present].all()  # and it is reached: the numbers of the docstring are the bound
    expected = torch.full_like(ratio[present], 1 + sign * 0.5 * math.tanh(0.15))
    torch.testing.assert_close(ratio[present], expected, rtol=1e-4, atol=1e-5)


def test_std_gets_no_smaller_than_its_floor():
    images = 0.1002 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    images[:, :, 32:] *= 0.2
    regions = torch.zeros(1, 2, 64, 64)
    regions[:, 0, :32] = 1
    regions[:, 1, 32:] = 1
    _, before = region_statistics(images, regions, 0)
    _, after = region_statistics(restyle(images, regions, torch.full((1, 2, 6), -0.3), StyleConfig()), regions, 0)
    assert (after[:, 0] >= torch.minimum(before[:, 0], torch.tensor(0.1)) - 1e-5).all()
    torch.testing.assert_close(after[:, 1], before[:, 1])


def test_values_stay_within_the_limit():
    images, _, masks, valid = scene()
    config = StyleConfig(limit=1.0)
    result = restyle(images, style_regions(masks, valid, "graph"), torch.full((2, 4, 6), 0.3), config)
    assert (result <= images.clamp_min(1.0)).all()
    assert (result >= images.clamp_max(-1.0)).all()


@pytest.mark.parametrize("variant", STYLE_VARIANTS)
def test_every_parameter_gets_a_gradient(variant):
    torch.manual_seed(1)
    images, embedding, masks, valid = scene()
    embedding.requires_grad_()
    attacker = StyleAttacker(StyleConfig(variant=variant), feature_dim=DIM)
    attacker(images, embedding, masks, valid).square().sum().backward()
    assert embedding.grad is None
    for name, parameter in attacker.named_parameters():
        assert parameter.grad.abs().max() > 1e-8, name


def test_saturated_residuals_can_still_move():
    images, *rest = scene()
    attacker = StyleAttacker(StyleConfig(variant="multi"), feature_dim=DIM)
    with torch.no_grad():
        attacker.mlp[-1].bias.fill_(0.5)  # a hard clamp at 0.3 would have no slope here
    attacker(images, *rest).sum().backward()
    assert attacker.mlp[-1].bias.grad.abs().min() > 1e-3


@pytest.mark.parametrize("variant", STYLE_VARIANTS)
def test_padding_has_no_influence(variant):
    torch.manual_seed(2)
    images, embedding, masks, valid = scene()
    attacker = StyleAttacker(StyleConfig(variant=variant, init_std=0.1), feature_dim=DIM).eval()
    padded = torch.cat([masks, torch.rand(2, 2, 64, 64).round()], dim=1)
    more = torch.cat([valid, torch.zeros(2, 2, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(
        attacker(images, embedding, padded, more), attacker(images, embedding, masks, valid), rtol=0, atol=1e-6
    )


def test_images_of_a_batch_do_not_mix():
    torch.manual_seed(3)
    images, *rest = scene()
    attacker = StyleAttacker(StyleConfig(init_std=0.1), feature_dim=DIM).eval()
    alone = torch.cat([attacker(images[b : b + 1], *(x[b : b + 1] for x in rest)) for b in range(2)])
    torch.testing.assert_close(attacker(images, *rest), alone, rtol=0, atol=1e-5)


def test_objects_only_variants_leave_the_background_alone():
    torch.manual_seed(4)
    images, embedding, masks, valid = scene()
    outside = (masks.amax(1, keepdim=True) == 0).expand_as(images)
    for variant in ("single", "multi"):
        result = RandomStyle(StyleConfig(variant=variant))(images, embedding, masks, valid)
        assert torch.equal(result[outside], images[outside])
        assert (result[~outside] != images[~outside]).float().mean() > 0.9


def test_runs_under_bf16_autocast_and_alone():
    torch.manual_seed(5)
    images, embedding, masks, valid = scene(batch=1)
    attacker = StyleAttacker(StyleConfig(init_std=0.1), feature_dim=DIM).eval()
    exact = attacker(images, embedding, masks[:, :1], valid[:, :1])
    with torch.autocast("cpu", torch.bfloat16):
        result = attacker(images, embedding, masks[:, :1], valid[:, :1])
        result.sum().backward()
    assert result.dtype == torch.float32
    assert torch.equal(result, exact)


def test_random_styles_differ_by_draw_and_are_seeded():
    args = scene()
    torch.manual_seed(6)
    first, second = RandomStyle(StyleConfig())(*args), RandomStyle(StyleConfig())(*args)
    torch.manual_seed(6)
    assert torch.equal(RandomStyle(StyleConfig())(*args), first)
    assert not torch.equal(first, second)


def test_parameter_counts():
    attacker = StyleAttacker(StyleConfig())
    assert sum(p.numel() for p in attacker.mlp.parameters()) == 33_926  # paper: 34 K
    assert sum(p.numel() for p in attacker.graph.parameters()) == 34_012  # paper: 34 K
    assert StyleAttacker(StyleConfig(variant="multi")).graph is None


@pytest.mark.parametrize("override", ["variant=all", "epsilon=0", "epsilon_std=1.0", "min_pixels=-1", "graph.hidden=0"])
def test_impossible_settings_are_refused(override):
    with pytest.raises(RuacError, match=override.split("=")[0].split(".")[-1]):
        load_config(StyleConfig, None, [override])
