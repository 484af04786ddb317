"""Augmentation: one map for image and masks, and a plain resize when every range is zero."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision import transforms

from ruac.base.errors import RuacError
from ruac.data.augment import AugmentConfig, augment, normalise, square, to_tensor

PLAIN = AugmentConfig(
    flip=False, crop=1.0, rotation=0, shear=0, brightness=0, contrast=0, saturation=0, hue=0, grayscale=0
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def ramps(height, width):
    """An image that says where each of its pixels was: x and y as shares, at pixel centres."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, 0.5)])


def test_preparation_is_that_of_torchvision_and_sam2(rng):
    picture = rng.integers(0, 256, (37, 53, 3), np.uint8)
    theirs = transforms.ToTensor()(picture)
    assert torch.equal(to_tensor(picture), theirs)
    for side in (16, 64):  # smaller and larger than the picture
        assert torch.equal(square(theirs, side), transforms.Resize((side, side))(theirs))
    expected = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(theirs)
    assert torch.equal(normalise(theirs), expected)


@pytest.mark.parametrize(("height", "width", "side"), [(32, 32, 32), (24, 40, 96), (48, 32, 32)])
def test_zero_ranges_are_a_plain_resize(rng, height, width, side):
    image = torch.rand(3, height, width)
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, 5:15, 3:20], masks[1, -6:, -9:] = True, True
    resized, moved = augment(image, masks, side, PLAIN, rng)
    expected = F.interpolate(image[None], (side, side), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(resized, expected, atol=1e-4, rtol=0)
    assert moved.dtype == torch.bool
    shares = F.interpolate(masks[None].float(), (side, side), mode="bilinear", align_corners=False)[0]
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[side // 16 : -side // 16, side // 16 : -side // 16] = True  # zeros beyond the picture fade into its edge
    decided = ((shares - 0.5).abs() > 1e-3) & inside
    assert torch.equal(moved & decided, (shares > 0.5) & decided)
    assert decided.float().mean() > 0.5


def test_image_and_masks_share_the_map(rng):
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[8:20, 10:30], mask[16:30, 25:50] = True, True
    image = mask.float().expand(3, -1, -1)
    config = replace(PLAIN, flip=True, crop=0.5, rotation=25, shear=20)
    results = []
    for _ in range(20):
        picture, moved = augment(image, mask[None], 64, config, rng)
        decided = (picture[0] - 0.5).abs() > 1e-3
        assert torch.equal((picture[0] > 0.5) & decided, moved[0] & decided)
        assert decided.float().mean() > 0.98
        results.append(moved[0])
    assert sum(not torch.equal(results[0], other) for other in results) == 19


def test_flip(rng):
    image, masks = torch.rand(3, 32, 32), torch.rand(1, 32, 32) < 0.5
    plain = augment(image, masks, 32, PLAIN, rng)[0]
    flipped = 0
    for _ in range(40):
        picture, moved = augment(image, masks, 32, replace(PLAIN, flip=True), rng)
        if torch.allclose(picture, plain.flip(2), atol=1e-4):
            flipped += 1
            assert (moved == masks.flip(2)).float().mean() > 0.99
        else:
            torch.testing.assert_close(picture, plain, atol=1e-4, rtol=0)
    assert 8 <= flipped <= 32


def test_rotation_turns_about_the_centre_by_at_most_its_range(rng):
    config = replace(PLAIN, rotation=30)
    angles = []
    for _ in range(200):
        x, y = augment(ramps(64, 64), torch.zeros(0, 64, 64, dtype=torch.bool), 64, config, rng)[0][:2]
        assert x[31:33, 31:33].mean() == pytest.approx(0.5, abs=1e-3)
        assert y[31:33, 31:33].mean() == pytest.approx(0.5, abs=1e-3)
        angles.append(np.degrees(np.arctan2(float(y[32, 36] - y[32, 28]), float(x[32, 36] - x[32, 28]))))
    assert np.abs(angles).max() <= 30.1
    assert min(angles) < -25
    assert max(angles) > 25


def test_crops_keep_their_share_and_stay_inside(rng):
    config = replace(PLAIN, crop=0.25)
    areas = []
    for _ in range(200):
        x, y = augment(ramps(48, 64), torch.zeros(0, 48, 64, dtype=torch.bool), 64, config, rng)[0][:2]
        (left, right), (top, bottom) = x[32, [8, 56]], y[[8, 56], 32]
        across, down = (right - left) * 64 / 48, (bottom - top) * 64 / 48
        areas.append(float(across * down))
        centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
        for centre, size in ((centre_x, across), (centre_y, down)):
            assert centre - size / 2 > -0.02
            assert centre + size / 2 < 1.02
    assert 0.24 < min(areas) < 0.32
    assert 0.93 < max(areas) < 1.01


def test_outside_the_picture_the_border_repeats_and_masks_are_empty(rng):
    image, masks = torch.full((3, 32, 32), 0.7), torch.ones(1, 32, 32, dtype=torch.bool)
    empty = 0
    for _ in range(10):
        picture, moved = augment(image, masks, 32, replace(PLAIN, rotation=45), rng)
        torch.testing.assert_close(picture, image, atol=1e-4, rtol=0)
        empty += int((~moved).sum())
    assert empty > 100


def test_colour(rng):
    image = torch.rand(3, 16, 16)
    none = torch.zeros(0, 16, 16, dtype=torch.bool)
    grey = augment(image, none, 16, replace(PLAIN, grayscale=1.0), rng)[0]
    assert (grey.amax(dim=0) - grey.amin(dim=0)).max() < 1e-4
    assert grey.std() > 0.01
    for name in ("brightness", "contrast", "saturation", "hue"):
        changed = augment(image, none, 16, replace(PLAIN, **{name: 0.4}), rng)[0]
        assert (changed - image).abs().max() > 1e-3, name
        assert changed.amin() >= 0
        assert changed.amax() <= 1


def test_the_generator_decides_everything():
    image, masks = torch.rand(3, 20, 30), torch.rand(2, 20, 30) < 0.5
    config = AugmentConfig(crop=0.5, hue=0.1)
    first, again, other = (augment(image, masks, 32, config, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    ("name", "value"), [("crop", 0.0), ("crop", 1.5), ("rotation", -1.0), ("grayscale", -0.1), ("hue", -0.1)]
)
def test_impossible_ranges_are_named(name, value):
    with pytest.raises(RuacError, match=f"augment.{name}: {value}"):
        replace(PLAIN, **{name: value}).validate()


def test_a_closeup_holds_its_object_and_fills_more_of_the_square_than_before(rng):
    masks = torch.zeros(2, 60, 80, dtype=torch.bool)
    masks[0, 40:55, 5:15] = True  # 15 tall: windows of 18 to 45 pixels, cut at the picture's border
    masks[1, 2:4, 70:74] = True
    config = replace(PLAIN, closeup=1.0)
    for _ in range(30):
        _, moved = augment(torch.rand(3, 60, 80), masks, 64, config, rng)
        share = moved[0].float().mean() * 64 * 64 / (15 * 10)  # pixels of the square per picture pixel
        assert 0.9 * (64 / 45) ** 2 <= share <= 1.1 * (64 / 18) ** 2


def test_a_closeup_of_a_whole_picture_is_the_picture(rng):
    image, masks = torch.rand(3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)
    picture, moved = augment(image, masks, 32, replace(PLAIN, closeup=1.0), rng)
    torch.testing.assert_close(picture, augment(image, masks, 32, PLAIN, rng)[0])
    assert moved.float().mean() > 0.9
    empty = augment(image, ~masks, 32, replace(PLAIN, closeup=1.0), rng)[0]
    torch.testing.assert_close(empty, picture)
