"""Clicks to a good mask: who sees the truth, how clicks are counted, and what is written."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from ruac.base.errors import RuacError
from ruac.evaluation.sweep.config import ModelConfig
from ruac.evaluation.sweep.open import open_domains
from ruac.inference.look_mean import look_again
from ruac.studies.experiments.next_click import RULES, NextClickConfig, View, clicks_to, run_next_click

ORACLES = {"random_error", "oracle"}


@pytest.fixture
def view():
    rng = np.random.default_rng(0)
    probability = np.repeat(np.repeat(rng.random((6, 8)), 8, 0), 8, 1)
    mask = probability > 0.5
    clicked, truth = np.array([[3.0, 4.0]]), rng.random(mask.shape) > 0.5
    return View(mask, clicked, truth, rng, lambda: (probability, 1 - abs(2 * probability - 1)))


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


def test_boundary_asks_for_no_map(view):
    assert RULES["boundary"](replace(view, read=None)) == RULES["boundary"](view)


@pytest.mark.parametrize("rule", RULES)
def test_an_empty_mask(view, rule):
    nothing = np.zeros(view.mask.shape)
    x, y = RULES[rule](replace(view, mask=nothing > 0, read=lambda: (nothing, nothing)))
    assert 0 <= x < 64
    assert 0 <= y < 48


def test_region_is_the_oracle_of_the_expected_error(view):
    """Where a map knows every error, both click equally deep; of several regions the likelier errors count."""
    truth = np.zeros((48, 64), bool)
    truth[5:30, 10:40], truth[35:45, 50:60] = True, True
    mask = np.zeros_like(truth)
    mask[5:30, 10:20] = True
    one = replace(view, mask=mask, truth=truth, read=lambda: (np.where(truth, 0.9, 0.1), None))
    (x, y), (right_x, right_y) = RULES["region"](one), RULES["oracle"](one)
    depth = ndimage.distance_transform_edt(np.pad(truth & ~mask, 1))[1:-1, 1:-1]
    assert depth[y, x] == depth[right_y, right_x] == depth.max()
    probability = np.zeros(truth.shape)
    probability[2:12, 2:12], probability[20:29, 20:29], probability[40:48, :] = 0.6, 0.9, 0.4
    likely = replace(view, mask=np.zeros_like(mask), read=lambda: (probability, None))
    assert RULES["region"](likely) == (24, 24)


def test_the_first_click_that_reaches_the_target_counts():
    ious = np.array([0.2, 0.86, 0.4, 0.95])
    assert [clicks_to(ious, target) for target in (0.1, 0.85, 0.9, 0.99)] == [1, 2, 4, 4]


def test_a_row_per_domain_model_and_rule(shelf, tmp_path):
    config = NextClickConfig(
        domains=[str(shelf / "domains")],
        models=[
            ModelConfig(name, export=str(shelf / "head"), backbone=str(shelf / "backbone.yaml"), looks=looks)
            for name, looks in (("plain", []), ("zoomed", ["zoom"]))
        ],
        rules=["region", "boundary"],
        out=str(tmp_path),
        images=2,
        clicks=3,
    )
    table = pd.read_csv(run_next_click(config) / "next_click.csv")
    assert list(zip(table.domain, table.model, table.rule, strict=True)) == [
        (domain, model, rule)
        for domain in ("first", "second")
        for model in ("plain", "zoomed")
        for rule in config.rules
    ]
    assert (table.objects == 4).all()
    assert table.noc85.between(1, 3).all()
    assert (table.noc85 <= table.noc90).all()
    for _, rows in table.groupby("domain"):
        assert rows.iou1.nunique() == 1, "the first click is the same for all rules"


def test_looked_at_masks_are_what_is_judged_and_clicked_on(shelf, tmp_path, monkeypatch):
    entry = {"export": str(shelf / "head"), "backbone": str(shelf / "backbone.yaml"), "looks": ["zoom"]}
    config = NextClickConfig(
        domains=[str(shelf / "domains")],
        models=[ModelConfig("zoomed", **entry)],
        rules=["boundary"],
        out=str(tmp_path),
        images=1,
        clicks=2,
        looked=True,
    )
    seen = []

    def all_of_it(model, looks, question):
        seen.append(len(question.choice))
        return replace(look_again(model, looks, question), masks=np.ones_like(question.masks))

    plain = pd.read_csv(run_next_click(replace(config, looked=False)) / "next_click.csv")
    monkeypatch.setattr("ruac.studies.experiments.next_click.look_again", all_of_it)
    found = pd.read_csv(run_next_click(config) / "next_click.csv")
    assert seen, "every click is looked at again"
    truth = open_domains(config.domains)["first"][0].masks[:2]
    assert found[found.domain == "first"].iou1.item() == pytest.approx(truth.mean())
    assert plain.iou1.to_list() != found.iou1.to_list()
    with pytest.raises(RuacError, match="looked: expected models with looks="):
        replace(config, models=[ModelConfig("plain", export="e")]).validate()


def test_what_cannot_be_run():
    with pytest.raises(RuacError, match="at least one entry under domains"):
        NextClickConfig().validate()
    with pytest.raises(RuacError, match="rules: 'oracl', expected some of expected"):
        NextClickConfig(domains=["a"], rules=["oracl"]).validate()
