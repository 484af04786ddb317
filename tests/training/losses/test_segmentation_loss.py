"""The segmentation loss against torchvision and loops over pixels."""

import math

import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from ruac.training.losses.segmentation import SegmentationConfig, segmentation_loss, soft_targets

N, SIZE = 3, 8
UNIT = SegmentationConfig(1.0, 1.0, 1.0, 1.0)


@pytest.fixture
def step():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(N, 4, SIZE, SIZE, generator=generator)
    iou = torch.rand(N, 4, generator=generator)
    score = torch.randn(N, 1, generator=generator)
    targets = torch.zeros(N, SIZE, SIZE)
    targets[0, 1:4, 2:7], targets[1, 5:, :3], targets[2, :, ::2] = 1, 1, 1
    return logits, iou, score, targets


def naive(logits, target):
    """Focal, dice and IoU of one mask, pixel by pixel in double precision."""
    focal = overlap = total = both = either = 0.0
    for logit, t in zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        focal -= 0.25 * t * (1 - p) ** 2 * math.log(p) + 0.75 * (1 - t) * p**2 * math.log(1 - p)
        overlap, total = overlap + p * t, total + p + t
        both, either = both + (logit > 0 and t > 0.5), either + (logit > 0 or t > 0.5)
    return focal / target.numel(), 1 - (2 * overlap + 1) / (total + 1), both / max(either, 1)


@pytest.mark.parametrize("soft", [False, True])
def test_every_term_against_loops(step, soft):
    logits, iou, score, targets = step
    if soft:
        targets = (targets * 0.6 + 0.2 * torch.rand(targets.shape)).clamp(0, 1)
    config = SegmentationConfig(focal=20.0, dice=1.5, iou=0.5, object_score=2.0)
    terms = segmentation_loss(logits, iou, score, targets, config)
    for n in range(N):
        focal, dice, true = np.array([naive(logits[n, k], targets[n]) for k in range(4)]).T
        best = 1 + np.argmin((20 * focal + 1.5 * dice)[1:])
        assert terms["focal"][n].item() == pytest.approx(20 * (focal[0] + focal[best]), rel=1e-4)
        assert terms["dice"][n].item() == pytest.approx(1.5 * (dice[0] + dice[best]), rel=1e-4)
        assert terms["iou"][n].item() == pytest.approx(0.5 * np.abs(iou[n].numpy() - true).sum(), rel=1e-4)
        expected = 2 * math.log(1 + math.exp(-score[n].item()))  # the object is there
        assert terms["object_score"][n].item() == pytest.approx(expected, rel=1e-4)


def test_focal_is_torchvisions(step):
    logits, iou, score, targets = step
    logits[:, 1:] = logits[:, 1:2]  # equal candidates: the first one is chosen
    focal = segmentation_loss(logits, iou, score, targets, UNIT)["focal"]
    expected = sigmoid_focal_loss(logits, targets[:, None].expand_as(logits), alpha=0.25, gamma=2).mean(dim=(2, 3))
    torch.testing.assert_close(focal, expected[:, 0] + expected[:, 1])


def test_only_the_single_mask_and_the_best_candidate_are_moved(step):
    logits, iou, score, targets = step
    sign = 2 * targets - 1
    logits[0, 3], logits[1, 1], logits[2, 2] = 5 * sign[0], 5 * sign[1], 5 * sign[2]
    logits.requires_grad_()
    iou.requires_grad_()
    terms = segmentation_loss(logits, iou, score, targets, UNIT)
    (terms["focal"] + terms["dice"]).sum().backward(retain_graph=True)
    moved = logits.grad.flatten(2).abs().amax(dim=2) > 0
    assert moved.tolist() == [[True, False, False, True], [True, True, False, False], [True, False, True, False]]
    logits.grad = None
    terms["iou"].sum().backward()
    assert logits.grad is None or not logits.grad.any()  # the true IoU is a target, not a prediction
    assert (iou.grad.abs() == 1).all()  # every token learns its own


def test_iou_predictions_are_drawn_to_the_true_iou(step):
    logits, _, score, targets = step
    true = torch.tensor([[naive(logits[n, k], targets[n])[2] for k in range(4)] for n in range(N)])
    terms = segmentation_loss(logits, true, score, targets, UNIT)
    torch.testing.assert_close(terms["iou"], torch.zeros(N), atol=1e-6, rtol=0)


def test_an_absent_object_teaches_its_absence_only(step):
    logits, iou, score, targets = step
    targets[1] = 0
    terms = segmentation_loss(logits, iou, score, targets, UNIT)
    assert [terms[name][1].item() for name in ("focal", "dice", "iou")] == [0, 0, 0]
    assert terms["object_score"][1].item() == pytest.approx(math.log(1 + math.exp(score[1].item())), rel=1e-4)
    assert terms["dice"][0] > 0


def test_half_precision_and_huge_logits_stay_finite(step):
    logits, iou, score, targets = step
    logits = (1000 * logits).to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = segmentation_loss(logits, iou.to(torch.bfloat16), score.to(torch.bfloat16), targets, UNIT)
    assert all(term.dtype == torch.float32 and term.isfinite().all() for term in terms.values())
    sum(term.sum() for term in terms.values()).backward()
    assert logits.grad.isfinite().all()


def test_no_objects():
    empty = torch.zeros(0, 4, SIZE, SIZE)
    terms = segmentation_loss(empty, torch.zeros(0, 4), torch.zeros(0, 1), torch.zeros(0, SIZE, SIZE), UNIT)
    assert all(term.shape == (0,) for term in terms.values())


def test_soft_targets_are_covered_shares():
    masks = torch.rand(2, 12, 12) < 0.5
    targets = soft_targets(masks, 3)
    for n in range(2):
        for y in range(3):
            for x in range(3):
                share = masks[n, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].float().mean()
                assert targets[n, y, x] == pytest.approx(share.item())
    assert torch.equal(soft_targets(masks, 12), masks.float())
