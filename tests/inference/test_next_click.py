"""The next click: where, on which side, and what it is expected to gain."""

import numpy as np
import pytest
from scipy import ndimage

from ruac.base.errors import RuacError
from ruac.inference.next_click import LEVELS, next_click

ROWS, COLUMNS = np.mgrid[:60, :80]


def disc(x, y, radius):
    return (COLUMNS - x) ** 2 + (ROWS - y) ** 2 <= radius**2


def scene(**doubts):
    """A sure disc, and discs of doubt: probability by place."""
    probability = np.where(disc(40, 30, 12), 0.99, 0.01)
    for region, p in doubts.values():
        probability = np.where(region, p, probability)
    return probability > 0.5, probability


def test_in_the_middle_of_what_is_probably_missing():
    mask, probability = scene(missing=(disc(65, 30, 8), 0.45))
    click = next_click(mask, probability)
    assert (click.point, click.label) == ((65, 30), 1)


def test_in_the_middle_of_what_is_probably_too_much():
    mask, probability = scene(missing=(disc(65, 30, 5), 0.45), excess=(disc(15, 30, 9), 0.55))
    click = next_click(mask, probability)
    assert (click.point, click.label) == ((15, 30), 0)


def test_a_likely_small_error_comes_before_an_unlikely_large_one():
    mask, probability = scene(small=(disc(65, 30, 6), 0.45), large=(disc(15, 30, 9), 0.1))
    assert next_click(mask, probability).point == (65, 30)


def test_no_click_is_repeated_and_clicks_push_others_away():
    mask, probability = scene(missing=(disc(65, 30, 8), 0.45))
    clicked = []
    for _ in range(6):
        click = next_click(mask, probability, np.array(clicked).reshape(-1, 2))
        assert list(click.point) not in clicked
        if clicked:
            assert np.abs(np.array(clicked) - click.point).max(axis=1).min() >= 2
        clicked.append(list(click.point))


def test_gain_and_expected_iou_are_those_of_every_imagined_truth():
    """By brute force: each truth in turn, and the wrong region under the click mended."""
    rng = np.random.default_rng(0)
    for seed in range(5):
        noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(60, 80)), 6)
        probability = 1 / (1 + np.exp(-8 * noise / noise.std()))
        mask = probability > 0.5
        click = next_click(mask, probability, rng.integers(0, 60, (2, 2)))
        x, y = click.point
        before, gain = [], []
        for t in (np.arange(LEVELS) + 0.5) / LEVELS:
            truth = probability > t
            wrong, _ = ndimage.label(mask != truth)
            mended = np.where((wrong == wrong[y, x]) & (wrong > 0), truth, mask) if wrong[y, x] else mask
            iou = [(each & truth).sum() / max((each | truth).sum(), 1) for each in (mask, mended)]
            before.append(iou[0])
            gain.append(iou[1] - iou[0])
        assert click.expected_iou == pytest.approx(np.mean(before))
        assert click.gain == pytest.approx(np.mean(gain))
        assert click.gain > 0
        assert click.label == (not mask[y, x])


def test_a_large_picture_is_looked_at_in_steps():
    mask, probability = scene(missing=(disc(65, 30, 8), 0.45))
    large = [np.kron(each, np.ones((20, 20))).astype(each.dtype) for each in (mask, probability)]
    click = next_click(*large)
    x, y = click.point
    assert (abs(x / 20 - 65.5) < 1, abs(y / 20 - 30.5) < 1, click.label) == (True, True, 1)
    small = next_click(mask, probability)
    assert click.gain == pytest.approx(small.gain, rel=0.05)
    assert click.expected_iou == pytest.approx(small.expected_iou, rel=0.05)
    again = next_click(*large, np.array([click.point]))
    assert np.abs(np.subtract(again.point, click.point)).max() > 20


def test_nothing_is_left_to_ask_where_nothing_is_doubted():
    mask = disc(40, 30, 12)
    assert next_click(mask, mask.astype(float)) is None
    probability = np.where(mask, 1.0, 0.0)
    probability[5, 7] = 0.4
    assert next_click(mask, probability).point == (7, 5)
    assert next_click(mask, probability, np.array([[7, 5]])) is None


def test_maps_of_different_shapes():
    with pytest.raises(RuacError, match="expected one"):
        next_click(np.zeros((4, 5), bool), np.zeros((5, 4)))
