"""Metrics of label maps with classes against torchmetrics and against a loop over pixels."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError, MulticlassJaccardIndex

from ruac.evaluation.metrics.semantic import SemanticSums

K = 4


def pictures(count=3, *, gain=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        logits = gain * torch.randn(K, 17, 23, generator=generator)
        labels = torch.where(
            torch.rand(17, 23, generator=generator) < 0.6,
            logits.argmax(0),
            torch.randint(0, K, (17, 23), generator=generator),
        )
        labels[torch.rand(17, 23, generator=generator) < 0.1] = 255
        yield logits.softmax(0), labels


def test_miou_and_ece_are_those_of_torchmetrics():
    sums = SemanticSums(K)
    jaccard = MulticlassJaccardIndex(K, ignore_index=255)
    error = MulticlassCalibrationError(K, n_bins=15, ignore_index=255)
    for probability, labels in pictures():
        sums.update(probability, labels)
        jaccard.update(probability.argmax(0)[None], labels[None])
        error.update(probability[None], labels[None])
    values = sums.compute()
    assert values["miou"] == pytest.approx(float(jaccard.compute()), abs=1e-6)
    assert values["ece"] == pytest.approx(float(error.compute()), abs=1e-5)


def test_certainty_is_that_of_a_loop_over_pixels():
    sums, counts = SemanticSums(K), dict.fromkeys(((a, c) for a in (0, 1) for c in (0, 1)), 0)
    for probability, labels in pictures():
        sums.update(probability, labels)
        known = [(y, x) for y in range(17) for x in range(23) if labels[y, x] != 255]
        entropy = [-sum(float(p) * np.log(float(p)) for p in probability[:, y, x]) for y, x in known]
        middle = sorted(entropy)[(len(entropy) - 1) // 2]
        for (y, x), u in zip(known, entropy, strict=True):
            counts[int(probability[:, y, x].argmax() != labels[y, x]), int(u > middle + 1e-9)] += 1
    values = sums.compute()
    assert values["p_acc_cert"] == pytest.approx(counts[0, 0] / (counts[0, 0] + counts[1, 0]))
    assert values["p_unc_inacc"] == pytest.approx(counts[1, 1] / (counts[1, 1] + counts[1, 0]))
    terms = [values["miou"], 1 - values["ece"], values["p_acc_cert"], values["p_unc_inacc"]]
    assert values["rss"] == pytest.approx(4 / sum(1 / t for t in terms))


def test_a_class_that_is_nowhere_does_not_count():
    sums = SemanticSums(3)
    labels = torch.tensor([[0, 0, 1, 255]])
    sums.update(torch.nn.functional.one_hot(torch.tensor([[0, 1, 1, 2]]), 3).permute(2, 0, 1).float(), labels)
    np.testing.assert_allclose(sums.iou(), [0.5, 0.5, np.nan])
    assert sums.compute()["miou"] == 0.5
    assert np.isnan(SemanticSums(3).compute()["rss"])


@pytest.mark.parametrize(
    ("probability", "labels", "message"),
    [
        (torch.full((3, 2, 2), 1 / 3), torch.zeros(2, 3), "expected"),
        (torch.full((3, 2, 2), 2.0), torch.zeros(2, 2), "add up to 1"),
        (torch.full((3, 2, 2), torch.nan), torch.zeros(2, 2), "add up to 1"),
        (torch.full((3, 2, 2), 1 / 3), torch.full((2, 2), 3), "0 to 2"),
    ],
)
def test_what_is_no_label_map_is_refused(probability, labels, message):
    with pytest.raises(ValueError, match=message):
        SemanticSums(3).update(probability, labels)
