"""Coverage at a risk, the area under the curve, and the table of the experiment."""

import numpy as np
import pandas as pd
import pytest

from ruac.base.errors import RuacError
from ruac.fitting.reliability import ReliabilityConfig, run_reliability
from ruac.studies.experiments.accept import SCORES, AcceptConfig, area_under_risk, coverage_at, run_accept


def test_coverage_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(20):
        score, iou = rng.integers(0, 6, 30) / 5, rng.random(30)
        best = 0.0
        for threshold in np.unique(score):
            kept = score >= threshold
            if 1 - iou[kept].mean() <= 0.45:
                best = max(best, kept.mean())
        assert coverage_at(score, iou, 0.45) == pytest.approx(best)


def test_a_perfect_order_has_the_smallest_area():
    iou = np.random.default_rng(0).random(50)
    assert area_under_risk(iou, iou) < area_under_risk(-iou, iou)
    assert area_under_risk(np.array([2.0, 1.0]), np.array([1.0, 0.0])) == pytest.approx(0.25)


def test_a_row_per_domain_and_score(shelf, coco_folder, tmp_path):
    model = {"export": str(shelf / "head"), "backbone": str(shelf / "backbone.yaml"), "cpu": True}
    fitted = run_reliability(ReliabilityConfig(source=str(coco_folder), out=str(tmp_path / "fit"), **model))
    config = AcceptConfig(
        domains=[str(shelf / "domains")], reliability=str(fitted), risk=0.9, out=str(tmp_path), clicks=[1, 3], **model
    )
    table = pd.read_csv(run_accept(config) / "accept.csv")
    assert list(zip(table.domain, table.score, strict=True)) == [
        (domain, score) for domain in ("first", "second", "all") for score in SCORES
    ]
    for _, rows in table.groupby("domain"):
        by = rows.set_index("score")
        assert (by.coverage <= by.coverage["oracle"]).all()
        assert (by.aurc >= by.aurc["oracle"] - 1e-12).all()
    total = table[table.domain == "all"].iloc[0].masks
    assert total == 2 * table.iloc[0].masks == 2 * 2 * 20
    with pytest.raises(RuacError, match="nothing was fitted for looks 'zoom'"):
        run_accept(AcceptConfig(domains=[str(shelf / "domains")], reliability=str(fitted), looks="zoom", **model))


def test_settings_that_make_no_sense():
    with pytest.raises(RuacError, match="expected at least one entry under domains"):
        AcceptConfig().validate()
    with pytest.raises(RuacError, match=r"clicks: \[4\], expected from 1 to protocol.clicks = 3"):
        AcceptConfig(domains=["a"], clicks=[4]).validate()
