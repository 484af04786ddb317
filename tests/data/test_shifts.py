"""Shifted domains: what each changes, what it must leave alone."""

import numpy as np
import pytest
from scipy import ndimage

from ruac.data.open import validate_dataset
from ruac.data.synthetic.scenes import SceneConfig, SceneDataset
from ruac.data.synthetic.shifts import SHIFTS
from ruac.data.synthetic.textures import smooth_noise
from ruac.data.synthetic.weather import convolved

CONFIG = SceneConfig(side=112, objects=(2, 5))
KEEPS_MASKS = [name for name in SHIFTS if name != "elastic"]


def scene(index=0):
    return SceneDataset(index + 1, seed=21, config=CONFIG)[index]


def shifted(name, sample, seed=0):
    return SHIFTS[name](sample.image, sample.masks, np.random.default_rng(seed))


def test_there_are_at_least_eight():
    assert len(SHIFTS) >= 8


@pytest.mark.parametrize("name", SHIFTS)
def test_every_shift_is_deterministic_changes_the_picture_and_not_its_input(name):
    sample = scene()
    image, masks = sample.image.copy(), sample.masks.copy()
    first, first_masks = shifted(name, sample)
    again, again_masks = shifted(name, sample)
    other, _ = shifted(name, sample, seed=1)
    np.testing.assert_array_equal(sample.image, image)
    np.testing.assert_array_equal(sample.masks, masks)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first_masks, again_masks)
    assert first.dtype == np.uint8
    assert first.shape == image.shape
    assert first_masks.dtype == bool
    assert np.abs(first.astype(int) - image).mean() > 2
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", SHIFTS)
def test_every_domain_is_valid_and_keeps_its_objects(name):
    dataset = SceneDataset(12, seed=4, config=CONFIG, shift=name)
    validate_dataset(dataset)
    for sample in dataset:
        area = sample.masks.sum(axis=(1, 2))
        assert area.max() >= 64
        assert area.min() >= 32
        assert sample.masks.sum(axis=0).max() == 1
    other = SceneDataset(1, seed=5, config=CONFIG, shift=name)
    assert not np.array_equal(dataset[0].image, other[0].image)


@pytest.mark.parametrize("name", KEEPS_MASKS)
def test_shifts_of_the_picture_leave_masks_alone(name):
    sample = scene()
    np.testing.assert_array_equal(shifted(name, sample)[1], sample.masks)


@pytest.mark.parametrize("name", SHIFTS)
def test_pictures_need_not_be_square_and_masks_may_overlap(name):
    image = np.random.default_rng(0).integers(0, 256, (70, 101, 3), np.uint8)
    masks = np.zeros((2, 70, 101), bool)
    masks[0, 10:50, 10:60], masks[1, 30:65, 40:95] = True, True
    result, moved = SHIFTS[name](image, masks, np.random.default_rng(3))
    assert result.shape == image.shape
    assert moved.shape == masks.shape
    assert (moved[0] & moved[1]).any()


def test_elastic_moves_masks_with_the_picture():
    """A picture painted from the masks must, once bent, still be the one painted from the bent masks."""
    for index in range(5):
        sample = scene(index)
        inside = sample.masks.any(axis=0)
        painted = np.repeat(np.where(inside, 220, 30).astype(np.uint8)[..., None], 3, axis=2)
        bent, masks = SHIFTS["elastic"](painted, sample.masks, np.random.default_rng(index))
        wrong = (bent[..., 0] > 125) != masks.any(axis=0)
        moved = (masks.any(axis=0) != inside).mean()
        assert moved > 0.01
        assert wrong.mean() < 0.2 * moved  # bilinear and nearest pixels differ on the outline


def test_elastic_spares_small_objects():
    image = np.zeros((120, 120, 3), np.uint8)
    masks = np.zeros((30, 120, 120), bool)
    for k, (y, x) in enumerate(np.random.default_rng(0).integers(4, 112, (30, 2))):
        masks[k, y : y + 3, x : x + 3] = True
    for seed in range(10):
        _, moved = SHIFTS["elastic"](image, masks, np.random.default_rng(seed))
        assert moved.sum(axis=(1, 2)).min() >= 5


def test_texture_swap_changes_objects_only():
    sample = scene()
    result, _ = shifted("texture_swap", sample)
    difference = np.abs(result.astype(int) - sample.image).max(axis=2)
    inside = sample.masks.any(axis=0)
    assert difference[~inside].max() == 0
    assert all(difference[mask].mean() > 10 for mask in sample.masks)


def test_fog_veils_what_is_far_more_than_what_is_near():
    gradient = np.repeat((np.indices((96, 96)).sum(axis=0) % 2 * 200).astype(np.uint8)[..., None], 3, axis=2)
    result, _ = SHIFTS["fog"](gradient, np.zeros((0, 96, 96), bool), np.random.default_rng(0))
    assert result[:20].std() < 0.3 * result[-20:].std()
    assert result[:20].mean() > result[-20:].mean()


def test_microscopy_shows_bright_objects_on_a_dark_field():
    for index in range(4):
        sample = SceneDataset(index + 1, seed=2, config=CONFIG, shift="microscopy")[index]
        inside = sample.masks.any(axis=0)
        assert sample.image[inside].mean() > 1.15 * sample.image[~inside].mean()
        assert sample.image[~inside].mean() < 80


def test_overhead_objects_are_small():
    source, overhead = (SceneDataset(10, seed=2, shift=s) for s in (None, "overhead"))
    size = [np.median(np.concatenate([s.masks.mean(axis=(1, 2)) for s in d])) for d in (source, overhead)]
    assert size[1] < 0.5 * size[0]


def test_blur_agrees_with_direct_convolution():
    image = np.random.default_rng(0).random((40, 51, 3), np.float32)
    kernel = np.random.default_rng(1).random((7, 7), np.float32)
    direct = np.stack([ndimage.convolve(image[..., c], kernel, mode="reflect") for c in range(3)], axis=2)
    np.testing.assert_allclose(convolved(image, kernel), direct, atol=1e-4)


def test_noise_and_blur_act_on_fine_detail():
    image = (128 + 40 * np.clip(smooth_noise(np.random.default_rng(0), 96, 96, cells=40), -3, 3)).astype(np.uint8)
    image, masks = np.repeat(image[..., None], 3, axis=2), np.ones((1, 96, 96), bool)
    detail = {
        name: ndimage.laplace(SHIFTS[name](image, masks, np.random.default_rng(1))[0][..., 0].astype(float)).std()
        for name in ("noise", "blur")
    }
    before = ndimage.laplace(image[..., 0].astype(float)).std()
    assert detail["noise"] > 1.3 * before
    assert detail["blur"] < 0.7 * before
