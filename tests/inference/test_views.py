"""Windows of a picture: nothing moves that is seen as it was, and clicks land on the pixel that they meant."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ruac.backbone.prompts import OBJECT, PADDING, Prompts
from ruac.inference.views import View, around


def test_seen_whole_nothing_changes_a_bit():
    size, side = (37, 53), 64
    view = View.whole(size)
    prompts = Prompts(torch.rand(2, 3, 2) * side, torch.ones(2, 3, dtype=torch.int64), torch.randn(2, 1, 16, 16))
    asked = view.ask(prompts, (side, side), (side, side), (side // 4, side // 4))
    assert torch.equal(asked.points, prompts.points)
    assert torch.equal(asked.mask_logits, prompts.mask_logits)
    assert torch.equal(view.weight(0.1), torch.ones(size))
    maps = torch.randn(1, 1, 16, 16)
    assert torch.equal(view.place(maps), F.interpolate(maps, size, mode="bilinear", align_corners=False))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert np.array_equal(view.cut(image), image)


@pytest.mark.parametrize("flip", [False, True])
def test_a_click_lands_on_the_same_pixel_of_the_cut_picture(flip):
    """A white pixel in a dark picture; the click's place in the window's square is over that pixel."""
    size, side = (48, 64), 96
    view = View(size, 10, 4, 42, 36, flip)  # 32 x 32 pixels on 96: 3 per picture pixel
    for x, y in [(10, 4), (41, 35), (20, 30), (10, 35)]:
        image = np.zeros((*size, 3), np.uint8)
        image[y, x] = 255
        row, column = np.argwhere(view.cut(image)[..., 0] == 255)[0]
        click = torch.tensor([[[x * side / size[1], y * side / size[0]]]])
        asked = view.ask(Prompts(click, torch.tensor([[OBJECT]])), *[(side, side)] * 3).points[0, 0]
        # SAM 2 scales whole pixel indices: without a flip the click is the pixel's first model pixel.
        assert ((asked / 3).floor() == torch.tensor([column, row])).all(), (asked, row, column)


def test_padding_stays_and_maps_follow_the_window():
    size, side = (60, 80), 64
    view = View(size, 20, 15, 60, 45)
    prompts = Prompts(torch.tensor([[[32.0, 32.0], [0.0, 0.0]]]), torch.tensor([[OBJECT, PADDING]]))
    asked = view.ask(prompts, (side, side), (side, side), (side // 4, side // 4))
    assert asked.points[0].tolist() == [[32.0, 32.0], [0.0, 0.0]]  # the middle stays the middle
    ramp = torch.linspace(0, 1, 17)[None, :].expand(17, 17)[None, None]  # of x, linear: bilinear is exact
    window = view.resample(ramp)
    cells = (torch.arange(17) + 0.5) / 17
    expected = ((0.25 + cells * 0.5) * 17 - 0.5) / 16
    torch.testing.assert_close(window[0, 0, 3], expected)
    y = x = 2 * (0.25 + cells * 0.5) - 1
    sampled = torch.randn(1, 1, 17, 17)
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
    theirs = F.grid_sample(sampled, places, mode="bilinear", padding_mode="border", align_corners=False)
    torch.testing.assert_close(view.resample(sampled), theirs, atol=1e-5, rtol=0)


def test_the_weight_falls_beyond_the_window_as_far_as_the_picture_goes():
    view = View((40, 40), 0, 10, 20, 40)
    grown = view.grown(0.25)
    assert grown == View((40, 40), 0, 2, 25, 40)  # the picture's left border and its bottom are no edges
    weight = view.weight(0.25)
    assert weight.shape == (38, 25)
    assert (weight[8:, :20] == 1).all()
    assert weight[20, 20:].tolist() == pytest.approx([(1 + np.cos(np.pi * (n + 0.5) / 5)) / 2 for n in range(5)])
    assert weight[7, 5] == pytest.approx((1 + np.cos(np.pi * 0.5 / 7.5)) / 2)
    assert weight[0, 5] == pytest.approx(0, abs=1e-6)  # 7.5 rows away
    whole = View((40, 40), 5, 5, 20, 20)
    assert whole.grown(0.0) == whole
    assert (whole.weight(0.0) == 1).all()


def test_what_a_window_says_at_its_border_goes_on_beyond_it():
    view = View((12, 12), 0, 4, 6, 10)
    maps = torch.arange(36.0).view(1, 1, 6, 6)
    grown = view.grown(0.4)
    spread = view.spread(maps, grown)
    assert grown == View((12, 12), 0, 1, 9, 12)
    assert spread.shape == (1, 1, 11, 9)
    assert torch.equal(spread[0, 0, 3:9, :6], maps[0, 0])
    assert (spread[0, 0, :3, 2] == maps[0, 0, 0, 2]).all()
    assert (spread[0, 0, 9:, 6:] == maps[0, 0, -1, -1]).all()


def test_a_window_holds_mask_and_clicks_and_lies_in_the_picture():
    rng = np.random.default_rng(0)
    for _ in range(200):
        size = tuple(rng.integers(20, 200, 2))
        mask = np.zeros(size, bool)
        y, x = (int(rng.integers(0, s)) for s in size)
        mask[y : y + int(rng.integers(1, 12)), x : x + int(rng.integers(1, 12))] = True
        points = np.array([[float(rng.integers(0, size[1])), float(rng.integers(0, size[0]))], [x, y]])
        view = around(points, mask, margin=1.6, pad=0.09, largest=1.0)
        assert 0 <= view.left < view.right <= size[1]
        assert 0 <= view.top < view.bottom <= size[0]
        inside = mask[view.window]
        assert inside.sum() == mask.sum()
        assert (points >= (view.left, view.top)).all()
        assert (points < (view.right, view.bottom)).all()


def test_single_pixels_and_empty_masks_have_a_window_and_large_ones_none():
    point = np.array([[63.0, 0.0]])
    mask = np.zeros((64, 64), bool)
    assert around(point, mask, margin=1.6, pad=0.09, largest=0.86) == around(
        point, np.pad(np.ones((1, 1), bool), ((0, 63), (63, 0))), margin=1.6, pad=0.09, largest=0.86
    )
    view = around(point, mask, margin=1.6, pad=0.0, largest=0.86)
    assert (view.left, view.top, view.right, view.bottom) == (62, 0, 64, 2)
    mask[5:50, 5:50] = True  # 1.6 * 59 + 5.8 pixels: all of the picture
    assert around(point, mask, margin=1.6, pad=0.09, largest=0.86) is None
    assert around(point, mask, margin=1.6, pad=0.09, largest=1.0) == View.whole((64, 64))
