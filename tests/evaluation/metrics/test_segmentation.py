"""J and F against definitions written out by brute force."""

import math

import numpy as np
import pytest
from scipy import ndimage

from ruac.evaluation.metrics.masks import boundary, boundary_f, jaccard
from ruac.studies.benchmark.boundary import boundary_f_by_distance


def _blobs(rng, shape, sigma, level):
    field = ndimage.gaussian_filter(rng.standard_normal(shape), (0, sigma, sigma))
    return field > level * field.std()


def _davis_boundary(mask):
    """The DAVIS rule pixel by pixel: differs from right, below or diagonal; last row and column look one way only."""
    height, width = mask.shape
    out = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            right = mask[y, x + 1] if x + 1 < width else mask[y, x]
            below = mask[y + 1, x] if y + 1 < height else mask[y, x]
            if x + 1 < width and y + 1 < height:
                out[y, x] = mask[y, x] != right or mask[y, x] != below or mask[y, x] != mask[y + 1, x + 1]
            else:
                out[y, x] = mask[y, x] != right or mask[y, x] != below
    return out


def _davis_f(prediction, truth):
    radius = math.ceil(0.008 * math.hypot(*truth.shape))
    ours, theirs = (np.argwhere(_davis_boundary(m)) for m in (prediction, truth))
    if not len(ours) and not len(theirs):
        return 1.0
    if not len(ours) or not len(theirs):
        return 0.0
    near = ((ours[:, None] - theirs[None]) ** 2).sum(-1) <= radius**2
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("shape", [(40, 61), (120, 90), (300, 64), (1, 30)])
@pytest.mark.parametrize("level", [-1.5, 0.0, 1.5])  # from nearly full, touching every border, to specks
def test_f_matches_brute_force(shape, level):
    rng = np.random.default_rng(7)
    truth = _blobs(rng, (4, *shape), 4, level)
    prediction = np.roll(truth, (1, 2), axis=(1, 2)) ^ _blobs(rng, (4, *shape), 2, 2.0)
    expected = [_davis_f(*pair) for pair in zip(prediction, truth, strict=True)]
    np.testing.assert_allclose(boundary_f(prediction, truth), expected, atol=1e-6)


def test_full_resolution_equals_distance_transforms():
    y, x = np.mgrid[:1024, :1024]
    rng = np.random.default_rng(3)
    wave = ndimage.zoom(_blobs(rng, (1, 128, 128), 5, 0.0)[0].astype(float), 8, order=1) - 0.5
    truth = np.stack([np.hypot(y - 500, x - 480) + 60 * wave < r for r in (20, 60, 150, 300)])
    prediction = np.stack([np.hypot(y - 505, x - 480) + 90 * wave < 1.02 * r for r in (20, 60, 150, 300)])
    result = boundary_f(prediction, truth)
    np.testing.assert_allclose(result, boundary_f_by_distance(prediction, truth), atol=1e-6)
    assert 0.2 < result.min() < result.max() < 1


def test_boundary_matches_the_rule():
    masks = _blobs(np.random.default_rng(0), (6, 23, 31), 2, 0.0)
    for mask in [*masks, np.ones((5, 7), bool), np.zeros((5, 7), bool)]:
        np.testing.assert_array_equal(boundary(mask), _davis_boundary(mask))


def test_tolerance_is_a_disk_of_the_stated_radius():
    # 1024 px square: ceil(0.008 * 1448.2) = 12 px
    truth = np.zeros((3, 1024, 1024), bool)
    prediction = truth.copy()
    truth[:, 500, 500] = True
    prediction[0, 512, 500] = prediction[1, 513 + 1, 500] = prediction[2, 509 + 1, 509 + 1] = True
    scores = boundary_f(prediction, truth)
    assert scores[0] == 1  # 12 px away: every boundary pixel has its counterpart
    assert scores[1] == 0  # 14 px down: the nearest boundary pixels are 13 apart
    # 10 px in both directions, nearest pixels sqrt(9^2 + 9^2) = 12.7 apart: outside a disk, inside a square
    assert scores[2] == 0


def test_empty_and_full_masks():
    empty, full = np.zeros((1, 20, 30), bool), np.ones((1, 20, 30), bool)
    dot = empty.copy()
    dot[0, 10, 10] = True
    assert jaccard(empty, empty) == boundary_f(empty, empty) == 1
    assert jaccard(empty, dot) == boundary_f(empty, dot) == boundary_f(dot, empty) == 0
    assert jaccard(full, full) == boundary_f(full, full) == 1
    assert boundary_f(full, empty) == 1  # neither has a boundary
    assert jaccard(full, empty) == 0
    assert jaccard(empty[:0], empty[:0]).shape == boundary_f(empty[:0], empty[:0]).shape == (0,)


def test_j_counts_pixels():
    prediction, truth = np.zeros((2, 2, 10, 10), bool)
    truth[:, 2:6, 2:6] = True  # 16
    prediction[0, 2:6, 2:6] = True
    prediction[1, 4:8, 2:6] = True  # 8 shared, 24 in all
    np.testing.assert_allclose(jaccard(prediction, truth), [1, 1 / 3])


def test_wrong_input_is_named():
    masks = np.zeros((1, 4, 4), bool)
    with pytest.raises(ValueError, match="prediction: expected bool"):
        jaccard(masks.astype(np.uint8), masks)
    with pytest.raises(ValueError, match="truth: expected bool"):
        boundary_f(masks, masks[0])
    with pytest.raises(ValueError, match="differ in shape"):
        boundary_f(masks, np.zeros((2, 4, 4), bool))
