"""Correlation with one's own error, with another's, and with mistakes."""

import numpy as np
import pandas as pd
import pytest

from ruac.base.errors import RuacError
from ruac.evaluation.sweep.config import ModelConfig
from ruac.studies.experiments.own_error import OwnErrorConfig, correlations, run_own_error


def entropy(p):
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def test_sharper_probabilities_lower_the_correlation_with_their_own_error_alone():
    """The same ranking of pixels: nothing was learned or lost, and PCC falls all the same."""
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 0.8, 20000)
    target = rng.random(20000) < 1 / (1 + np.exp(-2 * logit))  # twice as sure would be calibrated
    plain, sharp = (1 / (1 + np.exp(-scale * logit)) for scale in (1, 3))
    before = correlations(entropy(plain), plain, plain, target)
    after = correlations(entropy(sharp), sharp, plain, target)
    assert before["own"] == before["plain"]
    assert after["own"] < before["own"]
    assert after["plain"] > after["own"]
    assert after["error_wrong"] > before["error_wrong"]
    assert before["right"] > 0.9
    assert before["wrong"] < -0.9


def test_a_row_per_model_and_data_set(shelf, tmp_path):
    config = OwnErrorConfig(
        domains=[str(shelf / "domains")],
        models=[ModelConfig("ruac", export=str(shelf / "head"), backbone=str(shelf / "backbone.yaml"))],
        out=str(tmp_path),
        images=2,
        cpu=True,
    )
    table = pd.read_csv(run_own_error(config) / "own_error.csv")
    assert list(zip(table.domain, table.model, strict=True)) == [
        (domain, model) for domain in ("first", "second") for model in ("vanilla", "ruac")
    ]
    vanilla = table[table.model == "vanilla"]
    assert (vanilla.own == vanilla.plain).all()
    assert (table.pixels > 100).all()


def test_nothing_to_compare_is_said():
    with pytest.raises(RuacError, match="at least one entry under domains"):
        OwnErrorConfig().validate()
