"""Predicted IoU against true IoU: correlation and error per domain, checked against scipy."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from ruac.evaluation.report.mask_scores import mask_scores
from ruac.evaluation.results.load import load_results


@pytest.fixture
def loaded(results):
    """The sweep with more objects: 80 and 40 of two domains."""
    rng = np.random.default_rng(0)
    rows = []
    for domain, count in (("camvid", 80), ("leaves", 40)):
        for model, noise in (("vanilla", 0.2), ("ruac", 0.1)):
            j = rng.uniform(0.4, 1, count)
            predicted = j + rng.normal(0.05, noise, count)
            rows += [(domain, "i", str(k), model, *pair) for k, pair in enumerate(zip(j, predicted, strict=True))]
    table = pd.DataFrame(rows, columns=["domain", "image", "object", "model", "j", "predicted_iou"])
    return replace(load_results(results), every_object=table)


def test_numbers_are_means_over_domains(loaded):
    rows = {row["models"][0]: row for row in mask_scores(loaded)}
    assert set(rows) == {"vanilla", "ruac"}
    for model, row in rows.items():
        own = loaded.every_object[loaded.every_object.model == model]
        expected = []
        for _, group in own.groupby("domain"):
            true, predicted = group.j.to_numpy(), group.predicted_iou.clip(0, 1).to_numpy()
            error = predicted - true
            ranks = spearmanr(predicted, true).statistic
            good = roc_auc_score(true >= 0.75, predicted)
            kept = max(n for n in range(len(true) + 1) if n == 0 or 1 - true[np.argsort(-predicted)[:n]].mean() <= 0.25)
            correlation = pearsonr(predicted, true).statistic
            expected.append([np.abs(error).mean(), error.mean(), correlation, ranks, good, kept / len(true)])
        values = {cell["key"]: cell["value"] for cell in row["cells"]}
        assert list(values) == ["iou_mae", "iou_gap", "iou_pcc", "iou_spearman", "iou_auroc", "iou_coverage"]
        np.testing.assert_allclose(list(values.values()), np.mean(expected, 0), atol=5e-3)
        assert row["count"] == len(own)


def test_models_that_answer_the_same_share_a_row(loaded):
    table = loaded.every_object
    twin = table[table.model == "vanilla"].assign(model="ruac")
    same = replace(loaded, every_object=pd.concat([table[table.model == "vanilla"], twin]))
    assert [row["models"] for row in mask_scores(same)] == [["vanilla", "ruac"]]


def test_reliability_has_a_row_of_its_own(loaded):
    table = loaded.every_object.assign(reliability=lambda t: t.j.where(t.model == "ruac"))
    rows = {row["models"][0]: row for row in mask_scores(replace(loaded, every_object=table))}
    assert list(rows) == ["vanilla", "ruac", "ruac, reliability"]
    cells = {cell["key"]: cell["value"] for cell in rows["ruac, reliability"]["cells"]}
    assert cells["iou_mae"] == 0
    assert cells["iou_spearman"] == pytest.approx(1, abs=1e-3)


def test_references_and_missing_guesses_do_not_count(loaded):
    table = loaded.every_object.assign(predicted_iou=lambda t: t.predicted_iou.where(t.object != "0"))
    rows = mask_scores(replace(loaded, every_object=table, references=["camvid"]))
    assert [row["count"] for row in rows] == [39, 39]
    nothing = replace(loaded, every_object=table.assign(predicted_iou=np.nan))
    assert mask_scores(nothing) == []
