import math

import numpy as np
import pytest
from scipy import ndimage

from ruac.evaluation.metrics.region import bounding_box, dilate, object_band


def _distance(mask):
    return ndimage.distance_transform_edt(~mask)


@pytest.mark.parametrize("radius", [0, 1, 1.5, 3, 5, 7.3, 40, 500])
@pytest.mark.parametrize("density", [0.001, 0.02, 0.5])
def test_dilation_is_an_exact_disk(radius, density):
    mask = np.random.default_rng(1).random((57, 83)) < density
    mask[11, 13] = True
    np.testing.assert_array_equal(dilate(mask, radius), _distance(mask) <= radius)


def test_dilation_of_nothing_is_nothing():
    assert not dilate(np.zeros((9, 14), bool), 500).any()
    assert dilate(np.zeros((0, 14), bool), 2).shape == (0, 14)


def test_band_follows_its_definition():
    rng = np.random.default_rng(2)
    field = ndimage.gaussian_filter(rng.standard_normal((5, 90, 130)), (0, 6, 6))
    truth = field > field.std()  # several pieces each, some at the border
    truth[3] = False
    truth[4] = False
    truth[4, 89, 0] = True  # one pixel: the smallest radius holds
    band = object_band(truth)
    for mask, ours in zip(truth, band, strict=True):
        radius = max(3, 0.25 * math.sqrt(mask.sum()))
        expected = _distance(mask) <= radius if mask.any() else np.zeros_like(mask)
        np.testing.assert_array_equal(ours, expected)


def test_band_of_a_disk_is_half_background():
    y, x = np.mgrid[:400, :400]
    disk = (y - 200) ** 2 + (x - 200) ** 2 <= 90**2
    assert object_band(disk[None]).sum() / disk.sum() == pytest.approx((1 + 0.25 * math.sqrt(math.pi)) ** 2, rel=0.01)


def test_bounding_box():
    mask = np.zeros((20, 30), bool)
    assert bounding_box(mask) is None
    mask[4, 7] = mask[9, 28] = True
    assert bounding_box(mask) == (slice(4, 10), slice(7, 29))


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="truth: expected bool"):
        object_band(np.zeros((4, 4), bool))
