"""Clicks and boxes against brute force."""

import numpy as np
import pytest
import torch

from ruac.backbone.prompts import (
    BOX_FIRST,
    BOX_SECOND,
    OBJECT,
    PADDING,
    Prompts,
    boxes_of,
    central_correction,
    central_pixel,
    first_prompts,
    random_correction,
    random_pixel,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def blobs(count=20, height=15, width=21, seed=0, share=0.7):
    """Random masks of a few overlapping rectangles, some at the picture's edge."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        for _ in range(3):
            y, x = rng.integers(-3, height - 2), rng.integers(-3, width - 2)
            mask[max(y, 0) : y + rng.integers(3, 9), max(x, 0) : x + rng.integers(3, 9)] = True
        mask &= rng.random((height, width)) < 0.5 + share / 2
        mask[rng.integers(height), rng.integers(width)] = True
    return masks


def border_distance(mask, y, x):
    """Distance to the nearest pixel outside the region, where all of the world beyond the picture is outside."""
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    return np.sqrt(((outside - (y, x)) ** 2).sum(axis=1).min())


def brute_centre(mask):
    """The first pixel in reading order with the largest distance, and that distance."""
    best = (0.0, -1, -1)
    for y, x in np.argwhere(mask):
        distance = border_distance(mask, y, x)
        if distance > best[0] + 1e-9:
            best = (distance, int(x), int(y))
    return best


def test_random_pixels_are_inside_and_uniform(generator):
    region = torch.zeros(5, 6, dtype=torch.bool)
    region[1:3, 2:5] = True
    region[4, 0] = True  # 7 pixels in two parts
    draws = 7000
    points = random_pixel(region.expand(draws, 5, 6), generator)
    assert points.dtype == torch.float32
    assert torch.equal(points, points.round())
    x, y = points.long().unbind(dim=1)
    counts = torch.zeros(5, 6).index_put_((y, x), torch.ones(draws), accumulate=True)
    assert (counts[~region] == 0).all()
    expected = draws / 7
    assert ((counts[region] - expected) ** 2 / expected).sum() < 22.5  # chi-square, 6 degrees: p = 0.001


def test_random_pixel_of_an_empty_region_is_in_the_map(generator):
    x, y = random_pixel(torch.zeros(500, 3, 4, dtype=torch.bool), generator).unbind(dim=1)
    assert set(x.tolist()) == {0, 1, 2, 3}
    assert set(y.tolist()) == {0, 1, 2}


def test_boxes_are_tight():
    masks = torch.from_numpy(blobs())
    for mask, box in zip(masks, boxes_of(masks), strict=True):
        y, x = mask.nonzero(as_tuple=True)
        assert box.tolist() == [[x.min(), y.min()], [x.max() + 1, y.max() + 1]]
    assert boxes_of(torch.zeros(1, 4, 5, dtype=torch.bool)).tolist() == [[[0, 0], [0, 0]]]


def test_jitter_is_a_share_of_the_sides_and_bounded(generator):
    masks = torch.zeros(800, 250, 80, dtype=torch.bool)
    masks[:, 25:225, 20:60] = True  # 40 wide, 200 high
    boxes = boxes_of(masks, 0.1, generator)
    moved = boxes - torch.tensor([[20.0, 25.0], [60.0, 225.0]])
    assert moved[..., 0].std() == pytest.approx(4.0, rel=0.06)
    assert moved[..., 1].abs().max() == 20  # standard deviation 20, cut at 20
    boxes = boxes_of(torch.ones(500, 20, 30, dtype=torch.bool), 0.3, generator)  # kept in the picture
    assert boxes.amin() == 0
    assert boxes[..., 0].amax() == 30
    assert boxes[..., 1].amax() == 20


def test_first_prompts_are_boxes_and_clicks_in_the_share_asked_for(generator):
    masks = torch.zeros(2000, 12, 12, dtype=torch.bool)
    masks[:, 3:7, 4:10] = True
    prompts = first_prompts(masks, box_share=0.3, jitter=0.0, generator=generator)
    is_box = prompts.labels[:, 0] == BOX_FIRST
    assert abs(is_box.float().mean() - 0.3) < 3.3 * np.sqrt(0.3 * 0.7 / 2000)
    assert (prompts.labels[is_box] == torch.tensor([BOX_FIRST, BOX_SECOND])).all()
    assert (prompts.labels[~is_box] == torch.tensor([OBJECT, PADDING])).all()
    assert (prompts.points[is_box] == torch.tensor([[4.0, 3.0], [10.0, 7.0]])).all()
    x, y = prompts.points[~is_box, 0].long().unbind(dim=1)
    assert masks[0, y, x].all()
    assert len(set(zip(x.tolist(), y.tolist(), strict=True))) == 24
    assert prompts.mask_logits is None
    for share, label in ((0.0, OBJECT), (1.0, BOX_FIRST)):
        assert (first_prompts(masks, box_share=share, generator=generator).labels[:, 0] == label).all()


def test_random_corrections_lie_on_errors_and_say_what_is_there(generator):
    masks, predicted = torch.from_numpy(blobs(400, seed=1)), torch.from_numpy(blobs(400, seed=2))
    points, labels = random_correction(masks, predicted, object_share=0.0, generator=generator)
    x, y = points.long().unbind(dim=1)
    n = torch.arange(400)
    assert (masks ^ predicted)[n, y, x].all()
    assert torch.equal(labels, masks[n, y, x].long())
    assert 0 < labels.float().mean() < 1
    points, labels = random_correction(masks, predicted, object_share=1.0, generator=generator)
    x, y = points.long().unbind(dim=1)
    assert masks[n, y, x].all()
    assert (labels == OBJECT).all()
    assert not (masks ^ predicted)[n, y, x].all()


def test_random_corrections_mix_errors_and_object(generator):
    masks, predicted = torch.zeros(2, 3000, 8, 8, dtype=torch.bool)
    masks[:, :4], predicted[:, 2:6] = True, True
    _, labels = random_correction(masks, predicted, object_share=0.4, generator=generator)
    # Half of the error and all of the object are labelled 1.
    assert abs(labels.float().mean() - (0.4 + 0.6 / 2)) < 3.3 * np.sqrt(0.7 * 0.3 / 3000)


def test_without_an_error_the_click_falls_on_the_object(generator):
    masks = torch.from_numpy(blobs(50))
    points, labels = random_correction(masks, masks, object_share=0.0, generator=generator)
    x, y = points.long().unbind(dim=1)
    assert masks[torch.arange(50), y, x].all()
    assert (labels == OBJECT).all()


def test_central_pixel_against_brute_force():
    for mask in blobs(30):
        assert central_pixel(mask) == brute_centre(mask)[1:]
    assert central_pixel(np.ones((5, 9), bool)) == (2, 2)  # the picture's edge is a border; first of ties
    with pytest.raises(ValueError, match="empty region"):
        central_pixel(np.zeros((3, 3), bool))


def test_central_correction_takes_the_error_that_reaches_deeper():
    labels = set()
    for truth, predicted in zip(blobs(30, seed=3), blobs(30, seed=4), strict=True):
        missed, excess = brute_centre(truth & ~predicted), brute_centre(predicted & ~truth)
        x, y, label = central_correction(truth, predicted)
        assert (x, y) == (missed if missed[0] >= excess[0] else excess)[1:]
        assert label == int(missed[0] >= excess[0]) == int(truth[y, x])
        labels.add(label)
    assert labels == {0, 1}


def test_central_correction_of_a_large_error_beside_smaller_ones():
    rng = np.random.default_rng(5)
    labels = set()
    for side in range(1, 9):
        for truth in blobs(8, seed=side):
            predicted = truth ^ (rng.random(truth.shape) < 0.05)  # specks of both kinds
            predicted[:side, :side] = ~truth[0, 0]  # missed or excess, where they differ
            missed, excess = (
                brute_centre(region) if region.any() else (0, None, None)
                for region in (truth & ~predicted, predicted & ~truth)
            )
            x, y, label = central_correction(truth, predicted)
            assert (x, y) == (missed if missed[0] >= excess[0] else excess)[1:]
            labels.add(label)
    assert labels == {0, 1}


def test_central_correction_of_one_sided_errors():
    truth = np.zeros((9, 9), bool)
    truth[2:7, 2:7] = True
    assert central_correction(truth, np.zeros_like(truth)) == (4, 4, 1)
    assert central_correction(truth[:, :5] & False, truth[:, :5]) == (3, 3, 0)
    assert central_correction(truth, truth) is None
    assert central_correction(truth & False, truth & False) is None
    # Twenty pixels in a line weigh less than nine in a square.
    thin = np.zeros((12, 24), bool)
    thin[1, 2:22] = True
    thick = np.zeros((12, 24), bool)
    thick[5:8, 5:8] = True
    assert central_correction(thin, thick) == (6, 6, 0)


def test_prompts_grow_and_are_selected():
    prompts = Prompts(torch.zeros(3, 1, 2), torch.ones(3, 1, dtype=torch.int64))
    more = prompts.add(torch.tensor([[1.0, 2.0]] * 3), torch.tensor([0, 1, 0]), torch.zeros(3, 1, 4, 4))
    assert prompts.points.shape == (3, 1, 2)
    assert more.points[:, 1].tolist() == [[1, 2]] * 3
    assert more.labels.tolist() == [[1, 0], [1, 1], [1, 0]]
    last = more.add(torch.zeros(3, 2), torch.tensor([1, 1, 1]))
    assert last.mask_logits is more.mask_logits  # kept when no newer one is given
    assert last.select(torch.tensor([2, 0])).labels.tolist() == [[1, 0, 1], [1, 0, 1]]
    assert last.select(slice(1, 2)).mask_logits.shape == (1, 1, 4, 4)
    assert prompts.select(slice(0, 1)).mask_logits is None
