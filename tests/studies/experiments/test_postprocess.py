"""Post-processing on hand-made masks, and against SAM 2's own fallback."""

from dataclasses import replace

import numpy as np
import torch
from builders import make_decoded, mask_of

from ruac.backbone.prompts import Prompts
from ruac.studies.experiments.postprocess import STABILITY_DELTA, FallbackBackbone, clean_masks, fall_back


def test_small_holes_are_filled_and_specks_dropped():
    before = mask_of("########.. #.##..##.. ####..##.# ########.. .......... #.........")
    after = mask_of("########.. ####..##.. ####..##.. ########.. .......... ..........")
    assert (clean_masks(before[None], 2)[0] == after).all()
    assert (clean_masks(before[None], 0)[0] == before).all()
    filled = mask_of("########.. ########.. ########.. ########.. .......... ..........")
    assert (clean_masks(before[None], 4)[0] == filled).all()


def test_diagonal_neighbours_are_one_component_and_the_frame_is_no_exception():
    diagonal = mask_of("#... .#.. .... ....")
    assert (clean_masks(diagonal[None], 1)[0] == diagonal).all()
    assert not clean_masks(diagonal[None], 2).any()
    corner = mask_of(".### #### #### ####")
    assert clean_masks(corner[None], 1).all()


def test_masks_are_cleaned_one_by_one():
    masks = np.zeros((2, 9, 9), bool)
    masks[0, 2, 2] = masks[1, 1:8, 1:8] = True
    cleaned = clean_masks(masks, 3)
    assert not cleaned[0].any()
    assert (cleaned[1] == masks[1]).all()


def random_answer(objects=12):
    torch.manual_seed(0)
    logits = torch.randn(objects, 4, 8, 8)
    logits[::2, 0] *= 50  # stable
    logits[3, 0] = -1  # nothing at all counts as stable
    return replace(make_decoded(objects, side=8), logits=logits)


def test_fallback_is_that_of_sam2(nano):
    decoded = random_answer()
    decoder = nano.sam.sam_mask_decoder
    settings = {"dynamic_multimask_stability_delta": STABILITY_DELTA, "dynamic_multimask_stability_thresh": 0.98}
    before = {name: getattr(decoder, name, None) for name in settings}
    try:
        for name, value in settings.items():
            setattr(decoder, name, value)
        logits, iou = decoder._dynamic_multimask_via_stability(decoded.logits, decoded.iou)
    finally:
        for name, value in before.items():
            setattr(decoder, name, value)
    ours = fall_back(decoded, 0.98)
    assert torch.equal(ours.logits[:, :1], logits)
    assert torch.equal(ours.iou[:, :1], iou)
    assert torch.equal(ours.logits[:, 1:], decoded.logits[:, 1:])
    fell = (ours.logits[:, 0] != decoded.logits[:, 0]).flatten(1).any(dim=1)
    assert 0 < fell.sum() < len(fell)
    choice = decoded.iou[:, 1:].argmax(dim=1) + 1
    rows = torch.arange(len(fell))
    assert torch.equal(ours.mask_weights[fell, 0], decoded.mask_weights[rows, choice][fell])
    assert torch.equal(ours.mask_tokens[~fell, 0], decoded.mask_tokens[~fell, 0])


def test_backbone_falls_back_only_when_asked(nano):
    body = FallbackBackbone(nano)
    features = body.encode(torch.randn(1, 3, 64, 64)).gather(torch.zeros(2, dtype=torch.int64))
    prompts = Prompts(torch.tensor([[[20.0, 20.0]], [[40.0, 30.0]]]), torch.ones(2, 1, dtype=torch.int64))
    plain = nano.decode(features, prompts)
    assert torch.equal(body.decode(features, prompts).logits, plain.logits)
    body.stability = 1.0
    fallen = body.decode(features, prompts)
    assert torch.equal(fallen.logits, fall_back(plain, 1.0).logits)
    assert not torch.equal(fallen.logits, plain.logits)
