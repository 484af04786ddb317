import pytest
import torch
import torch.nn.functional as F
from builders import memory_blocks, three_objects
from torch import nn

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.training.attack.deformation import (
    DeformationAttacker,
    DeformationConfig,
    RandomDeformation,
    at_scales,
    deform,
)

DIM = 16


def scene(batch=2, size=64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    images = F.interpolate(torch.randn(batch, 3, size // 4, size // 4, generator=rng), size=size, mode="bicubic")
    embedding = torch.randn(batch, DIM, size // 16, size // 16, generator=rng)
    return images, embedding, *three_objects(batch, size)


def attacker(init_std=0.001, **kwargs):
    torch.manual_seed(12)
    return DeformationAttacker(DeformationConfig(init_std=init_std, **kwargs), memory_blocks(DIM), feature_dim=DIM)


@pytest.mark.parametrize("size", [32, 64, 96, 160, 256])
def test_zeroed_offsets_return_images_and_masks_bit_for_bit(size):
    images, embedding, masks, valid = scene(size=size)
    net = attacker()
    nn.init.zeros_(net.net[-1].weight)
    result = net(images, embedding, masks, valid)
    assert torch.equal(result.images, images)
    assert torch.equal(result.masks, masks)
    assert not result.displacement.any()


def test_a_plain_resampling_would_not_be_exact():
    # why `deform` pastes differences: at the identity, grid_sample returns the image only up to rounding
    images = scene(size=96)[0]
    theta = torch.eye(2, 3).expand(2, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    assert not torch.equal(F.grid_sample(images, grid, padding_mode="border", align_corners=False), images)


def test_a_new_attacker_is_close_to_the_identity():
    images, embedding, masks, valid = scene()
    result = attacker()(images, embedding, masks, valid)
    assert 0 < result.displacement.abs().max() < 0.5
    assert 0 < (result.images - images).abs().mean() < 0.05


@pytest.mark.parametrize("seed", [0, 1])
def test_displacement_is_bounded_with_huge_parameters(seed):
    images, embedding, masks, valid = scene(seed=seed)
    displacement = attacker(init_std=1e4)(images, embedding, masks, valid).displacement
    assert displacement.abs().max() <= 2 * 0.15 * 16 + 1e-5
    assert displacement.abs().max() > 0.15 * 16


def test_the_bound_is_twice_epsilon_because_of_the_mean():
    # one small object whose offsets are all +epsilon, -epsilon elsewhere: outside it the field reaches -2 epsilon
    masks = torch.zeros(1, 1, 64, 64)
    masks[:, :, :16, :16] = 1
    offsets = torch.full((1, 2, 4, 4), -0.15)
    offsets[..., 0, 0] = 0.15
    valid = torch.ones(1, 1, dtype=torch.bool)
    result = deform(torch.zeros(1, 3, 64, 64), masks, valid, offsets, DeformationConfig())
    assert result.displacement.abs().max() == pytest.approx(2 * 0.15 * 16, rel=1e-6)


def test_the_object_bends_but_does_not_travel():
    images, _, masks, valid = scene()
    offsets = 0.15 * torch.ones(int(valid.sum()), 2, 4, 4)
    result = deform(images, masks, valid, offsets, DeformationConfig())
    assert result.displacement.abs().max() < 1e-5
    offsets = 0.3 * torch.rand(int(valid.sum()), 2, 4, 4, generator=torch.Generator().manual_seed(1)) - 0.15
    cells = F.avg_pool2d(masks[valid][:, None], 16)
    shifted = offsets - (offsets * cells).sum((2, 3), keepdim=True) / cells.sum((2, 3), keepdim=True)
    expected = 16 * F.interpolate(shifted, size=64, mode="bilinear", align_corners=False)
    torch.testing.assert_close(deform(images, masks, valid, offsets, DeformationConfig()).displacement, expected)


def bilinear(picture, x, y):
    """Reference look-up with clamped borders: picture [C, S, S] at continuous pixel indices x, y [S, S]."""
    side = picture.shape[-1]
    x, y = x.clamp(0, side - 1), y.clamp(0, side - 1)
    left, top = x.floor().long().clamp(max=side - 2), y.floor().long().clamp(max=side - 2)
    a, b = x - left, y - top
    return (
        picture[:, top, left] * (1 - a) * (1 - b)
        + picture[:, top, left + 1] * a * (1 - b)
        + picture[:, top + 1, left] * (1 - a) * b
        + picture[:, top + 1, left + 1] * a * b
    )


def test_warp_and_paste_match_a_loop():
    images, embedding, masks, valid = scene()
    torch.manual_seed(3)
    result = RandomDeformation(DeformationConfig())(images, embedding, masks, valid)
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    n = 0
    for b in range(2):
        total, count = torch.zeros(3, 64, 64), torch.zeros(64, 64)
        for k in range(3):
            if not valid[b, k]:
                assert not result.masks[b, k].any()
                continue
            x, y = columns + result.displacement[n, 0], rows + result.displacement[n, 1]
            soft = bilinear(masks[b, k][None], x, y)[0]
            mask = (soft > 0.5).float()
            assert ((mask != result.masks[b, k]) & ((soft - 0.5).abs() > 1e-3)).sum() == 0
            assert (mask != masks[b, k]).sum() > 3  # it did move
            total += bilinear(images[b], x, y) * result.masks[b, k]
            count += result.masks[b, k]
            n += 1
        assert (count > 1).any()
        expected = torch.where(count > 0, total / count.clamp_min(1), images[b])
        torch.testing.assert_close(result.images[b], expected, rtol=0, atol=2e-4)


def test_image_and_mask_move_together():
    # an image that is the mask: within the new mask the pasted image must say "object" (> 0.5) everywhere
    _, embedding, masks, _ = scene()
    masks, valid = masks[:, :1], torch.ones(2, 1, dtype=torch.bool)
    torch.manual_seed(4)
    result = RandomDeformation(DeformationConfig(epsilon=0.24))(masks.expand(-1, 3, -1, -1), embedding, masks, valid)
    new, red = result.masks[:, 0] == 1, result.images[:, 0]
    gained = new & (masks[:, 0] == 0)
    assert gained.sum() > 10
    assert red[new].min() > 0.499
    assert torch.equal(red[~new], masks[:, 0][~new])  # left behind or never covered: unwarped
    assert not torch.isin(red, torch.tensor([0.0, 1.0])).all()


def test_direction_a_positive_displacement_looks_to_the_right():
    ramp = torch.arange(64.0).expand(1, 3, 64, 64).clone()
    masks, valid = torch.ones(1, 1, 64, 64), torch.ones(1, 1, dtype=torch.bool)
    offsets = torch.zeros(1, 2, 4, 4)
    offsets[:, 0, 1:3, 1:3] = 0.1
    result = deform(ramp, masks, valid, offsets, DeformationConfig())
    inside = (slice(None), 0, slice(10, 54), slice(10, 54))
    torch.testing.assert_close((result.images - ramp)[inside], result.displacement[inside], atol=1e-3, rtol=0)
    assert not result.displacement[:, 1].any()


def test_an_object_that_would_vanish_is_left_alone():
    images, _, masks, valid = scene()
    masks[0, 2] = 0
    masks[0, 2, 33, 49] = 1  # one pixel, below min_pixels wherever it goes
    torch.manual_seed(5)
    offsets = 0.3 * torch.rand(5, 2, 4, 4) - 0.15
    result = deform(images, masks, valid, offsets, DeformationConfig())
    assert torch.equal(result.masks[0, 2], masks[0, 2])
    assert torch.equal(result.images[0, :, 33, 49], images[0, :, 33, 49])
    assert not result.displacement[2].any()
    assert result.displacement[[0, 1, 3, 4]].any(dim=3).any(dim=2).any(dim=1).all()


def test_gradient_of_the_offsets_matches_finite_differences():
    rng = torch.Generator().manual_seed(6)
    images = F.interpolate(torch.randn(1, 3, 8, 8, generator=rng).double(), size=32, mode="bicubic")
    masks = torch.ones(1, 1, 32, 32, dtype=torch.float64)  # no boundary: the paste itself is not differentiable
    valid = torch.ones(1, 1, dtype=torch.bool)
    weight = torch.randn(1, 3, 32, 32, generator=rng).double()
    offsets = (0.1 * torch.randn(1, 2, 2, 2, generator=rng)).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda o: (deform(images, masks, valid, o, DeformationConfig()).images * weight).sum(), offsets, eps=1e-7
    )


def test_offsets_have_a_gradient_at_the_identity():
    images, _, masks, valid = scene()
    offsets = torch.zeros(5, 2, 4, 4, requires_grad=True)
    result = deform(images, masks, valid, offsets, DeformationConfig())
    assert torch.equal(result.images, images)
    result.images.square().sum().backward()
    assert offsets.grad.abs().amax((1, 2, 3)).min() > 1e-3


def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one():
    images, embedding, masks, valid = scene()
    embedding.requires_grad_()
    net = attacker()
    net(images, embedding, masks, valid).images.square().sum().backward()
    assert embedding.grad is None
    for name, parameter in net.named_parameters():
        if name.startswith("frozen"):
            assert not parameter.requires_grad
        else:
            assert parameter.grad.abs().max() > 1e-8, name


def test_blocks_are_copied_frozen_and_stay_in_evaluation_mode():
    blocks = memory_blocks(DIM)
    net = DeformationAttacker(DeformationConfig(), blocks, feature_dim=DIM)
    assert all(p.requires_grad for p in blocks.fuser.parameters())
    kept = net.frozen["pix_feat_proj"].weight.clone()
    nn.init.zeros_(blocks.pix_feat_proj.weight)
    assert torch.equal(net.frozen["pix_feat_proj"].weight, kept)
    assert net.train().net.training
    assert not any(module.training for module in net.frozen.modules())


def test_features_match_sam2s_memory_encoder():
    _, embedding, masks, valid = scene()
    net, blocks = attacker(), memory_blocks(DIM)  # seeded: the same blocks twice
    owner = [0, 0, 0, 1, 1]
    with torch.no_grad():
        shape = blocks.mask_downsampler(masks[valid][:, None] * 20.0 - 10.0)
        expected = blocks.fuser(blocks.pix_feat_proj(embedding[owner]) + shape)
    torch.testing.assert_close(net.fuse(embedding, masks, valid), expected)


def test_padding_has_no_influence():
    images, embedding, masks, valid = scene()
    net = attacker(init_std=0.1)
    more = torch.cat([torch.zeros(2, 1, dtype=torch.bool), valid], dim=1)
    padded = torch.cat([torch.zeros(2, 1, 64, 64), masks], dim=1)
    plain, wide = net(images, embedding, masks, valid), net(images, embedding, padded, more)
    torch.testing.assert_close(wide.images, plain.images, rtol=0, atol=1e-6)
    assert torch.equal(wide.masks[:, 1:], plain.masks)
    assert not wide.masks[:, 0].any()


def test_no_valid_object_changes_nothing():
    images, embedding, masks, valid = scene()
    result = attacker(init_std=0.1)(images, embedding, masks * 0, torch.zeros_like(valid))
    assert torch.equal(result.images, images)
    assert result.displacement.shape == (0, 2, 64, 64)


def test_runs_under_bf16_autocast_and_alone():
    images, embedding, masks, valid = scene(batch=1)
    net = attacker(init_std=0.1)
    exact = net(images, embedding, masks[:, :1], valid[:, :1])
    with torch.autocast("cpu", torch.bfloat16):
        result = net(images, embedding.bfloat16(), masks[:, :1], valid[:, :1])
        result.images.sum().backward()
    assert result.images.dtype == result.masks.dtype == result.displacement.dtype == torch.float32
    torch.testing.assert_close(result.displacement, exact.displacement, rtol=0, atol=0.1)


def test_parameter_counts():
    net = DeformationAttacker(DeformationConfig(), memory_blocks(256))
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 369_792  # paper: 370 K
    assert sum(p.numel() for p in net.frozen.parameters()) == 1_368_160  # paper: 1.37 M


@pytest.mark.parametrize("override", ["epsilon=0", "hidden=1", "min_pixels=0", "init_std=-1"])
def test_impossible_settings_are_refused(override):
    with pytest.raises(RuacError, match=override.split("=")[0]):
        load_config(DeformationConfig, None, [override])


def test_scales_add_up_and_one_scale_is_as_before():
    raw = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    assert torch.equal(at_scales(raw, DeformationConfig()), 0.15 * raw)
    config = DeformationConfig(epsilon=0.1, scales=[1, 4])
    both = at_scales(torch.cat([raw, raw], dim=1), config)
    coarse = F.interpolate(F.avg_pool2d(raw, 4), size=(8, 8), mode="bilinear")
    torch.testing.assert_close(both, 0.1 * raw + 0.4 * coarse)


def test_several_scales_stay_within_their_bound_and_bend_no_steeper_than_their_number():
    images, embedding, masks, valid = scene(size=128)
    net = attacker(init_std=1e4, scales=[1, 2, 4])
    displacement = net(images, embedding, masks, valid).displacement
    assert 2 * 0.15 * 16 < displacement.abs().max() <= 2 * 0.15 * 16 * (1 + 2 + 4) + 1e-4
    steep = torch.rand(1, 6, 8, 8, generator=torch.Generator().manual_seed(3)).round() * 2 - 1
    offsets = at_scales(steep, DeformationConfig(scales=[1, 2, 4]))
    assert offsets.diff(dim=-1).abs().max() <= 3 * 2 * 0.15 + 1e-6


def test_gradients_through_scales_are_those_of_finite_differences():
    images, _, masks, valid = scene(batch=1, size=32)
    config = DeformationConfig(epsilon=0.05, scales=[1, 2])
    raw = torch.rand(int(valid.sum()), 4, 2, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64) - 0.5
    probe = torch.randn(images.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def loss(values):
        return (deform(images.double(), masks.double(), valid, at_scales(values, config), config).images * probe).sum()

    assert torch.autograd.gradcheck(loss, (raw.requires_grad_(),), eps=1e-6, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("scales", [[], [0], [2, 2]])
def test_impossible_scales_are_named(scales):
    with pytest.raises(RuacError, match=r"deformation\.scales"):
        DeformationConfig(scales=scales).validate()
