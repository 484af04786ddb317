"""Clicks to a good mask: who sees the truth, how clicks are counted, and what is written."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ruac.base.errors import RuacError
from ruac.evaluation.sweep.config import ModelConfig
from ruac.studies.experiments.next_click import RULES, NextClickConfig, View, clicks_to, run_next_click

ORACLES = {"random_error", "oracle"}


@pytest.fixture
def view():
    rng = np.random.default_rng(0)
    probability = np.repeat(np.repeat(rng.random((6, 8)), 8, 0), 8, 1)
    mask = probability > 0.5
    candidates, doubt = np.stack([probability, rng.random(mask.shape), probability]), 1 - abs(2 * probability - 1)
    clicked, truth = np.array([[3.0, 4.0]]), rng.random(mask.shape) > 0.5
    return View(mask, probability, doubt, candidates, np.array([0.8, 0.5, 0.3]), clicked, truth, rng)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_clicks_inside_the_picture_where_nobody_clicked(view, rule):
    clicked = [(3, 4)]
    for _ in range(5):
        x, y = RULES[rule](replace(view, clicked=np.array(clicked, float)))
        assert 0 <= x < 64
        assert 0 <= y < 48
        assert (x, y) not in clicked
        clicked.append((x, y))
        if rule in ORACLES:
            assert view.mask[y, x] != view.truth[y, x]


@pytest.mark.parametrize("rule", RULES)
def test_only_the_oracles_see_the_truth(view, rule):
    places = []
    for truth in (view.truth, ~view.truth & ~view.mask, None):
        blind = replace(view, truth=truth, rng=np.random.default_rng(1))
        if rule in ORACLES and truth is None:
            with pytest.raises(TypeError):
                RULES[rule](blind)
        else:
            places.append(RULES[rule](blind))
    assert (len(set(places)) == 1) == (rule not in ORACLES)


def test_boundary_knows_the_mask_alone(view):
    other = replace(view, probability=view.probability[::-1], uncertainty=view.uncertainty[::-1])
    assert RULES["boundary"](view) == RULES["boundary"](other)


@pytest.mark.parametrize("rule", RULES)
def test_an_empty_mask(view, rule):
    empty = np.zeros_like(view.mask)
    x, y = RULES[rule](replace(view, mask=empty, probability=np.zeros(empty.shape), uncertainty=np.zeros(empty.shape)))
    assert 0 <= x < 64
    assert 0 <= y < 48


def test_the_first_click_that_reaches_the_target_counts():
    ious = np.array([0.2, 0.86, 0.4, 0.95])
    assert [clicks_to(ious, target) for target in (0.1, 0.85, 0.9, 0.99)] == [1, 2, 4, 4]


def test_a_row_per_domain_model_and_rule(shelf, tmp_path):
    config = NextClickConfig(
        domains=[str(shelf / "domains")],
        models=[ModelConfig("ruac", export=str(shelf / "head"), backbone=str(shelf / "backbone.yaml"))],
        rules=["expected", "boundary", "oracle"],
        out=str(tmp_path),
        images=2,
        clicks=3,
    )
    table = pd.read_csv(run_next_click(config) / "next_click.csv")
    assert list(zip(table.domain, table.rule, strict=True)) == [
        (domain, rule) for domain in ("first", "second") for rule in config.rules
    ]
    assert (table.objects == 4).all()
    assert table.noc85.between(1, 3).all()
    assert (table.noc85 <= table.noc90).all()
    for _, rows in table.groupby("domain"):
        assert rows.iou1.nunique() == 1, "the first click is the same for all rules"


def test_what_cannot_be_run():
    with pytest.raises(RuacError, match="at least one entry under domains"):
        NextClickConfig().validate()
    with pytest.raises(RuacError, match="rules: 'oracl', expected some of expected"):
        NextClickConfig(domains=["a"], rules=["oracl"]).validate()
