"""UncCorr on hand-made components."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import mask_of

from ruac.inference.model import UncertainSam
from ruac.inference.predictor import Predictor
from ruac.inference.unccorr import UncCorr, corrected

# Twenty pixels on the left, one speck in the middle, one at the right, which touch nothing.
MASK = mask_of("#####.....# #####...... #####..#... #####......")
SPECK, CORNER = (2, 7), (0, 10)


def uncertainty(speck, corner, body=0.1):
    values = np.where(MASK, body, 0.9).astype(np.float32)
    values[SPECK], values[CORNER] = speck, corner
    return values


def test_the_95th_percentile_of_the_mask_decides_where_it_is_above_the_floor():
    """22 pixels: the percentile lies at place 19.95 of 0..21, almost at the lower of the two specks."""
    after = corrected(MASK, uncertainty(speck=0.5, corner=0.8))
    assert not after[CORNER]
    assert not after[SPECK]  # 0.5 > 0.1 + 0.95 (0.5 - 0.1) = 0.48
    assert after.sum() == 20
    certain_specks = uncertainty(speck=0.5, corner=0.8, body=0.6)
    after = corrected(MASK, certain_specks)  # percentile 0.6
    assert after[SPECK]
    assert not after[CORNER]
    assert np.percentile(certain_specks[MASK], 95) == pytest.approx(0.6)


def test_the_floor_decides_below():
    after = corrected(MASK, uncertainty(speck=0.29, corner=0.31))
    assert after[SPECK]  # above the percentile, 0.28, but not 0.3
    assert not after[CORNER]
    assert (corrected(MASK, uncertainty(speck=0.29, corner=0.29)) == MASK).all()


def test_the_largest_stays_whatever_its_uncertainty():
    assert (corrected(MASK, uncertainty(speck=0.0, corner=0.0, body=1.0)) == MASK).all()
    alone = mask_of("##. ##. ...")
    assert (corrected(alone, np.ones((3, 3), np.float32)) == alone).all()
    twins = mask_of("#.#")  # of equals the first; the other's mean is above 0.5 + 0.95 * 0.4
    assert (corrected(twins, np.array([[0.5, 0.0, 0.9]])) == mask_of("#..")).all()


def test_the_mean_of_a_component_counts_and_diagonals_belong_to_it():
    mask = mask_of("######## ........ ##...... ..#.....")
    doubt = np.where(mask, 0.2, 0.0)
    doubt[2, :2], doubt[3, 2] = (0.9, 0.9), 0.0  # mean 0.6 with the diagonal, below the percentile of 0.9
    assert (corrected(mask, doubt) == mask).all()
    doubt[3, 2] = 0.9
    doubt[0, 0] = 1.0  # percentile 0.95 now, just above the component's 0.9
    assert (corrected(mask, doubt) == mask).all()
    many = np.concatenate([np.ones((10, 8), bool), mask])  # percentile 0.2
    assert (corrected(many, np.concatenate([np.full((10, 8), 0.2), doubt]))[12:] == mask_of("........ ........")).all()


def test_an_empty_mask_stays_empty_and_the_input_is_left_alone():
    empty = np.zeros((4, 5), bool)
    assert not corrected(empty, np.ones((4, 5))).any()
    before, doubt = MASK.copy(), uncertainty(speck=0.9, corner=0.9)
    after = corrected(MASK, doubt)
    assert (before == MASK).all()
    after[:] = False
    assert (before == MASK).all()


def test_a_predictor_corrects_masks_alone_and_only_when_asked(nano):
    predictor = Predictor(UncertainSam(nano, None), device="cpu")
    predictor.set_image(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    speck = torch.full((1, 4, 16, 16), 30.0)
    speck[..., 8:], speck[..., 6:9, 11:14] = -0.5, 0.5  # the left half, and a doubtful speck at the right
    decode = predictor.model.decode
    predictor.model.decode = lambda *given: replace(decode(*given), logits=speck)
    click = {"points": [[10, 10]], "labels": [1]}
    plain, after = predictor.predict(**click), predictor.predict(**click, correct=True)
    assert plain.masks[:, 20, 48].all()
    assert not after.masks[:, 20, 48].any()
    expected = np.stack([corrected(m, u) for m, u in zip(plain.masks, plain.uncertainty, strict=True)])
    np.testing.assert_array_equal(after.masks, expected)
    for name in ("scores", "logits", "probability", "uncertainty"):
        np.testing.assert_array_equal(getattr(after, name), getattr(plain, name))


class Shrink(torch.nn.Module):
    """Drops the leftmost column of a mask that is still there, and notes what it was given."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, masks, uncertainty):
        self.seen.append(int(masks.sum()))
        smaller = masks.copy()
        smaller[:, :, np.flatnonzero(masks.any((0, 1)))[0]] = False
        return smaller


def test_filters_act_in_their_order(nano):
    seen = []
    masks = np.zeros((1, 6, 6), bool)
    masks[0, 1:5, 1:5] = True
    model = UncertainSam(nano, None, [Shrink(seen), Shrink(seen), UncCorr()])
    result = model.filtered(masks, np.zeros((1, 6, 6), np.float32))
    assert seen == [16, 12]
    assert result.sum() == 8
    assert masks.sum() == 16  # what was given stays as it was
