"""The share of the learning rate over the steps of a run."""

import math

import numpy as np
import pytest

from ruac.training.engine import EngineConfig, rate_share


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_rate_share_shapes(schedule):
    config = EngineConfig(steps=100, warmup=10, hold=0.3, final_share=0.2, schedule=schedule)
    shares = np.array([rate_share(step, config) for step in range(100)])
    np.testing.assert_allclose(shares[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(shares[10:31], 1.0)
    if schedule == "constant":
        np.testing.assert_allclose(shares[31:], 1.0)
        return
    assert (np.diff(shares[30:]) < 0).all()
    assert 0.2 < shares[-1] < 0.23  # the step after the last one would have final_share
    middle = shares[30 + 35]
    assert middle == pytest.approx(0.6)
    quarter = {"linear": 0.2 + 0.8 * 0.7, "cosine": 0.2 + 0.8 * (1 + math.cos(0.3 * math.pi)) / 2}[schedule]
    assert shares[30 + 21] == pytest.approx(quarter)
