"""Windows about objects, and a deformation that looks only there, against one of whole pictures."""

import pytest
import torch
import torch.nn.functional as F
from builders import three_objects

from ruac.training.attack.deformation import DeformationConfig, deform
from ruac.training.attack.windows import Windows


def deformed_whole(images, masks, valid, offsets, config):
    """`deform` as it was written first: maps of the whole picture for every object."""
    owner, old = valid.nonzero()[:, 0], masks[valid][:, None]
    side, stride = images.shape[-1], images.shape[-1] // offsets.shape[-1]
    weight = F.avg_pool2d(old, stride)
    mean = (offsets * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1e-6)
    displacement = stride * F.interpolate(offsets - mean, size=(side, side), mode="bilinear", align_corners=False)
    centres = (2 * torch.arange(side, dtype=images.dtype) + 1) / side - 1
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1).expand(len(old), -1, -1, -1)

    def sample(pictures, grid):
        return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)

    moved = grid + displacement.permute(0, 2, 3, 1) * (2 / side)
    warped, landed = sample(torch.cat([images[owner], old], dim=1), moved).split([3, 1], dim=1)
    new = (landed.detach() > 0.5).to(old.dtype)
    survives = new.sum((1, 2, 3), keepdim=True) >= config.min_pixels
    new = torch.where(survives, new, old)
    change = (warped - sample(images[owner], grid)) * (new * survives)
    total = torch.zeros_like(images).index_add(0, owner, change)
    count = images.new_zeros(len(images), 1, side, side).index_add(0, owner, new)
    masks = masks.clone()
    masks[valid] = new[:, 0]
    return images + total / count.clamp_min(1), masks, displacement * survives


@pytest.mark.parametrize("scale", [0.15, 0.9])
@pytest.mark.parametrize("size", [64, 96, 256])
def test_windows_change_nothing(size, scale):
    """Objects in the middle, at the picture's edge, one that vanishes; also where they move far. Images, masks and the
    slopes of the image and of the offsets."""
    rng = torch.Generator().manual_seed(0)
    images = F.interpolate(torch.randn(2, 3, size // 4, size // 4, generator=rng), size=size, mode="bicubic")
    masks, valid = three_objects(2, size)
    masks[1, 0] = 0
    masks[1, 0, :9, size // 2 :] = 1
    masks[0, 2] = 0
    masks[0, 2, size // 2, size // 3] = 1
    offsets = scale * (2 * torch.rand(int(valid.sum()), 2, size // 16, size // 16, generator=rng).double() - 1)
    probe = torch.randn(images.shape, generator=rng).double()
    results = []
    for function in (deform, deformed_whole):
        leaves = images.double().requires_grad_(), offsets.clone().requires_grad_()
        found = function(leaves[0], masks.double(), valid, leaves[1], DeformationConfig())
        results.append([*found, *torch.autograd.grad((found[0] * probe).sum(), leaves)])
    ours, theirs = results
    assert torch.equal(ours[1], theirs[1])
    assert (ours[1] != masks).sum() > 20
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


def test_windows_hold_their_objects():
    masks = torch.zeros(3, 64, 64)
    masks[0, 10:14, 50:60], masks[1, 30:50, 0:3], masks[2, 60, 60] = 1, 1, 1
    windows = Windows.around(masks, 2.5)
    assert (windows.height, windows.width) == (26, 16)
    patches = windows.crop(masks[:, None], range(3))
    assert torch.equal(patches.sum((1, 2, 3)), masks.sum((1, 2)))
    assert torch.equal(windows.paste(patches, range(3), 3)[:, 0], masks)
    for mask, rows, columns in zip(masks, windows.rows, windows.columns, strict=True):
        found = mask.nonzero()
        for axis, part in ((0, rows), (1, columns)):
            assert part.start <= max(0, found[:, axis].min() - 3)
            assert part.stop >= min(64, found[:, axis].max() + 4)
    together = windows.paste(torch.ones(3, 1, 26, 16), [0, 0, 1], 2)
    assert together[0].sum() == 2 * together[1].sum() == 2 * 26 * 16
    assert Windows.around(masks, float("nan")) == Windows.around(masks, 1e9) == Windows((0,) * 3, (0,) * 3, 64, 64, 64)
