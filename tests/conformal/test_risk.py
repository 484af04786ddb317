"""Risk control: what it promises by simulation, what a library makes of the same losses, and what is refused."""

import math

import numpy as np
import pytest

from ruac.base.errors import RuacError
from ruac.conformal.mask_losses import at_least
from ruac.conformal.quantile import conformal_quantile
from ruac.conformal.risk import bound_p_values, control_risk, control_weighted, learn_then_test

GRID = np.linspace(1, 0, 201)  # thresholds, bold to safe


def losses(rng, *shape):
    """A smooth loss in [0, 1] that falls towards the safe end, of another steepness for every image."""
    steep = np.exp(rng.standard_normal((*shape, 1)))
    return GRID**steep


@pytest.mark.parametrize("count", [20, 100])
def test_expected_loss_by_simulation(count):
    """10^4 draws of calibration images and a new one: the mean loss of the new one is alpha, or little less."""
    rng, alpha, draws = np.random.default_rng(count), 0.1, 10_000
    seen = np.empty(draws)
    for draw in range(draws):
        drawn = losses(rng, count + 1)
        seen[draw] = drawn[-1, control_risk(drawn[:-1].mean(0), count, alpha)]
    error = 4 * seen.std() / math.sqrt(draws)
    step = 0.02  # of the loss between two thresholds of the grid
    assert alpha - 2 / (count + 1) - step - error <= seen.mean() <= alpha + error


def test_without_the_correction_the_promise_would_be_broken():
    """The test above can fail: the plain empirical quantile of few images misses too much."""
    rng, alpha, draws, count = np.random.default_rng(0), 0.1, 10_000, 10
    seen = np.empty(draws)
    for draw in range(draws):
        drawn = (rng.random((count + 1, 1)) < GRID).astype(float)
        seen[draw] = drawn[-1, int((drawn[:-1].mean(0) <= alpha).argmax())]
    assert seen.mean() > alpha + 4 * seen.std() / math.sqrt(draws)


def test_of_losses_that_are_0_or_1_it_is_the_conformal_quantile():
    rng = np.random.default_rng(5)
    for count in (9, 19, 64, 100):
        need = rng.random(count)  # the safe share that an image asks for
        place = control_risk((need[:, None] > 1 - GRID).mean(0), count, 0.1)
        wanted = conformal_quantile(need, 0.1)
        assert place == (0 if wanted <= 0 else int(np.searchsorted(1 - GRID, wanted)))


def test_learn_then_test_by_simulation():
    """In at most a share delta of 2000 calibrations is the true risk of the chosen threshold above alpha."""
    rng, alpha, delta, draws = np.random.default_rng(7), 0.15, 0.1, 2000
    truth = losses(np.random.default_rng(8), 200_000).mean(0)
    broken = bold = 0
    for _ in range(draws):
        place = learn_then_test(losses(rng, 80).mean(0), 80, alpha, delta)
        broken += truth[place] > alpha
        bold += place < len(GRID) - 1
    assert broken / draws <= delta + 4 * math.sqrt(delta * (1 - delta) / draws)
    assert bold > draws / 2  # and not by always answering with the safest


def test_p_values_are_valid_and_sharp():
    """For coin losses of risk alpha a p-value below delta is rarer than delta."""
    rng = np.random.default_rng(9)
    p = bound_p_values(rng.binomial(60, 0.1, 20_000) / 60, 60, 0.1)
    for delta in (0.05, 0.1, 0.3):
        assert (p <= delta).mean() <= delta
    assert bound_p_values([0.0, 0.1], 60, 0.1) == pytest.approx([0.9**60, 1], rel=1e-6)


def test_weights_mend_a_known_shift():
    """Images are harder where x is large; the true likelihood ratio keeps the risk of the shifted ones."""
    rng, alpha, draws, count = np.random.default_rng(11), 0.1, 3000, 150
    plain, mended = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        x = rng.standard_normal(count + 1)
        x[-1] += 1
        own = GRID ** np.exp(-x)[:, None]
        plain[draw] = own[-1, control_risk(own[:-1].mean(0), count, alpha)]
        ratio = np.exp(x - 0.5)
        place = control_weighted(own[:-1], ratio[:-1], ratio[-1], alpha)
        mended[draw] = 0 if place is None else own[-1, place]
    assert plain.mean() > alpha + 4 * plain.std() / math.sqrt(draws)
    assert mended.mean() <= alpha + 4 * mended.std() / math.sqrt(draws)


def test_equal_weights_are_no_weights():
    drawn = losses(np.random.default_rng(12), 50)
    assert control_weighted(drawn, np.ones(50), 1.0, 0.1) == control_risk(drawn.mean(0), 50, 0.1)
    assert control_weighted(drawn, np.full(50, 1e-9), 1.0, 0.1) is None


def test_a_library_finds_the_same_thresholds():
    """MAPIE's segmentation controller: recall by conformal risk control, precision by learn then test."""
    mapie = pytest.importorskip("mapie.risk_control")
    rng = np.random.default_rng(13)
    truth = rng.random((150, 12, 12)) < 0.4
    noise = rng.normal(0, 1, truth.shape) + rng.normal(0, 0.4, (150, 1, 1))
    probability = (1 / (1 + np.exp(-(5 * truth - 2.5 + noise)))).astype(np.float32)
    grid = np.linspace(0, 0.9, 91)
    above = np.nextafter(grid, 2)  # they keep what is above a threshold, not at it
    right = np.array([at_least(p[t], above) for p, t in zip(probability, truth, strict=True)])
    found = np.array([at_least(p.ravel(), above) for p in probability])

    def theirs(**asked):
        controller = mapie.SemanticSegmentationController(lambda x: x, target_level=0.9, predict_params=grid, **asked)
        controller.calibrate(probability[:, None], truth[:, None])
        return float(np.ravel(controller.best_predict_param)[0])

    missed = 1 - right / truth.sum(axis=(1, 2))[:, None]
    ours = grid[::-1][control_risk(missed.mean(0)[::-1], 150, 0.1)]
    assert ours == pytest.approx(theirs(risk="recall", method="crc"), abs=0.0101)
    impurity = 1 - right / found
    found = theirs(risk="precision", method="ltt", confidence_level=0.9)
    # Their correction for many thresholds lies between none, as for our sequence, and delta divided by their number.
    low, high = (grid[learn_then_test(impurity.mean(0), 150, 0.1, delta)] for delta in (0.1, 0.1 / len(grid)))
    assert low <= found <= high
    assert high - low < 0.15


def test_a_library_finds_the_same_p_values():
    methods = pytest.importorskip("mapie.risk_control.methods")
    mean = np.linspace(0, 0.3, 50)
    for alpha in (0.05, 0.1, 0.2):
        theirs = methods.compute_hoeffding_bentkus_p_value(mean, 80, alpha)[:, 0]
        assert bound_p_values(mean, 80, alpha) == pytest.approx(np.minimum(theirs, 1), rel=1e-6)


def test_what_cannot_be_kept_says_what_is_needed():
    with pytest.raises(RuacError, match="needs at least 99"):
        control_risk(np.zeros(5), 50, 0.01)
    with pytest.raises(RuacError, match="no threshold of the grid"):
        control_risk(np.full(5, 0.3), 50, 0.1)
    with pytest.raises(RuacError, match="needs at least 29"):
        learn_then_test(np.zeros(5), 10, 0.1, 0.05)
    learn_then_test(np.zeros(5), 29, 0.1, 0.05)
    with pytest.raises(RuacError, match="delta"):
        learn_then_test(np.zeros(5), 10, 0.1, 1.5)
