"""Saturated, empty and full maps: a metric has a value, or is nan where docs/metrics.md says that it has none."""

import math

import numpy as np
import pytest
import torch

from ruac.conformal.mask_losses import object_losses, object_sizes
from ruac.conformal.pixel_scores import pixel_scores
from ruac.conformal.quantile import conformal_quantile, weighted_quantile
from ruac.evaluation.metrics import ReliabilitySums, boundary_f, jaccard
from ruac.evaluation.metrics.reliability import update_sums

MASKS = {"empty": np.zeros((2, 9, 7), bool), "full": np.ones((2, 9, 7), bool)}
RANKING = {"auroc", "aupr", "fpr95", "ause", "prr", "e_aurc"}  # need both correct and wrong pixels
CORRELATION = {"pcc", "spearman"}  # need u and e that vary
SHARES = {"p_acc_cert", "p_unc_inacc", "p_acc_cert_image", "p_unc_inacc_image"}  # of what there may be none of


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("truth", MASKS)
@pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("doubt", [0.0, 1.0])
def test_reliability(logit, truth, doubt, dtype):
    probability = torch.full((2, 9, 7), logit, dtype=dtype).sigmoid()
    target = torch.from_numpy(MASKS[truth])
    sums = ReliabilitySums()
    sums.update(
        probability=probability,
        uncertainty=torch.full_like(probability, doubt),
        target=target,
        prediction=torch.full_like(target, logit > 0),
    )
    found = sums.compute()
    undefined = {name for name, value in found.items() if math.isnan(value)}
    assert undefined <= RANKING | CORRELATION | SHARES
    assert not any(map(math.isinf, found.values()))
    assert found["accuracy"] == float((logit > 0) == (truth == "full"))
    assert 0 <= found["nll"] <= 15.95


@pytest.mark.parametrize("region", MASKS)
def test_a_region_without_pixels_counts_nothing(region):
    sums = {("", "all"): ReliabilitySums(), ("", "part"): ReliabilitySums()}
    p = torch.tensor([0.0, 1.0]).repeat(63).reshape(2, 9, 7)
    masks = {"all": None, "part": torch.from_numpy(MASKS[region])}
    update_sums(sums, probability=p, uncertainty={"": p}, target=p > 0.5, prediction=p > 0.5, regions=masks)
    assert sums["", "part"].count == (p.numel() if region == "full" else 0)
    assert math.isnan(sums["", "part"].compute()["ece"]) == (region == "empty")


@pytest.mark.parametrize("theirs", MASKS)
@pytest.mark.parametrize("ours", MASKS)
def test_masks(ours, theirs):
    for score in (jaccard, boundary_f):
        found = score(MASKS[ours], MASKS[theirs])
        assert np.isfinite(found).all()
        assert ours != theirs or (found == 1).all()


@pytest.mark.parametrize("value", [0.0, 1e-45, 0.5, 1.0])
def test_conformal_losses_and_scores(value):
    probability = np.full((2, 9, 7), value, np.float32)
    truth = MASKS["full"].copy()
    for table in (*object_losses(probability, truth), *object_sizes(probability, truth)):
        assert np.isfinite(table).all()
        assert (table >= 0).all()
    scores = pixel_scores(probability, np.zeros((9, 7), int), ["a", "b"])
    assert np.isfinite(scores).all()
    assert np.isfinite(conformal_quantile(np.repeat(scores.reshape(-1), 30), 0.1)).all()


def test_a_quantile_of_infinite_scores_and_vanishing_weights():
    scores = np.array([0.0, 1.0, np.inf, np.inf])
    assert conformal_quantile(scores, 0.5) == np.inf
    assert conformal_quantile(scores[:1], 0.5) == 0.0
    assert weighted_quantile(np.zeros(3), np.full(3, 1e-300), 1e300, 0.1) == np.inf
    assert weighted_quantile(np.zeros(3), np.full(3, 1e300), 0.0, 0.1) == 0.0
