"""Losses of inner and outer masks against a count by hand, and the file that keeps their means."""

import json

import numpy as np
import pytest

from ruac.base.errors import RuacError
from ruac.conformal.bounds import BoundsConfig, fit_bounds, load_bounds
from ruac.conformal.mask_losses import INNER, OUTER, at_least, object_errors, object_losses, object_sizes


def drawn(rng, count=4, size=(9, 11)):
    """Objects with a probability that knows something of them, some of it saturated."""
    truth = rng.random((count, *size)) < 0.4
    truth[:, 0, 0] = True
    logits = rng.normal(0, 6, truth.shape) + 4 * truth - 2
    return (1 / (1 + np.exp(-logits))).astype(np.float32), truth


def test_grids_run_from_bold_to_safe_and_end_in_the_trivial_answer():
    assert OUTER.dtype == INNER.dtype == np.float32
    assert (np.diff(OUTER) < 0).all()
    assert (np.diff(INNER) > 0).all()
    assert OUTER[0] == INNER[0] == 0.5
    assert OUTER[-1] == 0
    assert INNER[-1] > 1


def test_losses_are_those_of_the_masks_counted_one_by_one():
    probability, truth = drawn(np.random.default_rng(0))
    missed, impurity = object_losses(probability, truth)
    itself = object_errors(probability, truth)[1]
    outer, inner = object_sizes(probability, truth)
    for n, (p, inside) in enumerate(zip(probability, truth, strict=True)):
        by_hand = [(inside & ~(p >= t)).sum() / inside.sum() for t in OUTER]
        assert missed[n] == pytest.approx(by_hand)
        plain = [((p >= t) & ~inside).sum() / max((p >= t).sum(), 1) for t in INNER]
        assert itself[n] == pytest.approx(plain)
        assert outer[n] == pytest.approx([(p >= t).sum() / inside.sum() for t in OUTER])
        assert inner[n] == pytest.approx([(p >= t).sum() / inside.sum() for t in INNER])
        worst = [max(plain[k:]) for k in range(len(plain))]
        assert impurity[n] == pytest.approx(worst)
        assert (np.diff(impurity[n]) <= 0).all()
        assert worst != plain  # the impurity itself does rise here and there
    assert (missed[:, -1] == 0).all()
    assert (impurity[:, -1] == 0).all()


@pytest.mark.parametrize("thresholds", [OUTER, INNER])
def test_counting_agrees_at_the_thresholds_themselves(thresholds):
    values = np.concatenate([thresholds, np.nextafter(thresholds, 0), np.random.default_rng(1).random(500)])
    values = values.astype(np.float32)
    assert at_least(values, thresholds).tolist() == [(values >= t).sum() for t in thresholds]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, t: (p * 8 - 4, t), r"values from .*expected \[0, 1\]; logits need a sigmoid"),
        (lambda p, t: (np.where(t, np.nan, p), t), "found nan"),
        (lambda p, t: (p, t & (np.arange(4) != 2)[:, None, None]), "object 2: the true mask is empty"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(RuacError, match=message):
        object_losses(*change(*drawn(np.random.default_rng(2))))


def losses_of(rng, count):
    parts = [object_losses(*drawn(rng)) for _ in range(count)]
    return [np.stack([losses.mean(0) for losses in column]) for column in zip(*parts, strict=True)]


@pytest.mark.slow
def test_coverage_of_new_images_by_simulation():
    """2000 calibrations on 30 images and one new image each: what outer masks cover and inner masks hold."""
    rng = np.random.default_rng(3)
    missed, impurity = losses_of(rng, 4000)
    seen = []
    for _ in range(10_000):
        *picked, new = rng.choice(len(missed), 31, replace=False)
        found = fit_bounds(missed[picked], impurity[picked], BoundsConfig()).at(0.2)
        seen.append((missed[new, found.outer == OUTER][0], impurity[new, found.inner == INNER][0]))
    for mean, spread in zip(np.mean(seen, 0), np.std(seen, 0), strict=True):
        assert mean <= 0.2 + 4 * spread / 100
        assert mean >= 0.2 - 2 / 31 - 0.02


def test_masks_are_nested_and_grow_with_less_risk():
    rng = np.random.default_rng(4)
    bounds = fit_bounds(*losses_of(rng, 60), BoundsConfig())
    probability, _ = drawn(rng)
    before = None
    for alpha in (0.4, 0.2, 0.1, 0.05):
        inner, outer = bounds.at(alpha)(probability)
        mask = probability >= 0.5
        assert not (inner & ~mask).any()
        assert not (mask & ~outer).any()
        if before is not None:
            assert not (inner & ~before[0]).any()
            assert not (before[1] & ~outer).any()
        before = inner, outer


def test_at_the_level_of_masks_losses_are_whole():
    missed, impurity = losses_of(np.random.default_rng(5), 50)
    bounds = fit_bounds(missed, impurity, BoundsConfig(level="mask", tolerance=0.2))
    place = int((bounds.at(0.1).outer == OUTER).argmax())
    assert (missed[:, place] > 0.2).sum() + 1 <= 0.1 * 51
    assert place == 0 or (missed[:, place - 1] > 0.2).sum() + 1 > 0.1 * 51


def test_the_file_holds_every_alpha(tmp_path):
    bounds = fit_bounds(*losses_of(np.random.default_rng(6), 40), BoundsConfig(), identity={"model": "x"})
    path = bounds.save(tmp_path / "c.json", alpha=0.1)
    again = load_bounds(path)
    assert again.identity == {"model": "x"}
    for alpha in (0.03, 0.1, 0.25):
        assert again.at(alpha) == bounds.at(alpha)
    content = json.loads(path.read_text())
    assert (content["outer"], content["inner"]) == (again.at(0.1).outer, again.at(0.1).inner)
    assert path.stat().st_size < 20_000


def test_an_alpha_that_asks_for_more_images_is_refused_before_a_file_is_written(tmp_path):
    bounds = fit_bounds(*losses_of(np.random.default_rng(7), 40), BoundsConfig())
    with pytest.raises(RuacError, match=r"40 images, but alpha=0.01 needs at least 99"):
        bounds.save(tmp_path / "c.json", alpha=0.01)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=9), "format 1"),
        (lambda c: c.pop("missed"), "key 'missed'"),
        (lambda c: c["impurity"].pop(), "key 'impurity': expected"),
        (lambda c: c["missed"].reverse(), "never grow"),
        (lambda c: c["missed"].__setitem__(0, "a"), "expected numbers"),
        (lambda c: c["config"].update(level="pixel"), "level: 'pixel', expected share or mask"),
        (lambda c: c["config"].update(extra=1), "key 'config'"),
    ],
)
def test_broken_files(tmp_path, change, message):
    path = fit_bounds(*losses_of(np.random.default_rng(8), 20), BoundsConfig()).save(tmp_path / "c.json", alpha=0.1)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RuacError, match=message):
        load_bounds(path)


def test_no_file(tmp_path):
    with pytest.raises(RuacError, match="not found; expected a file written by ruac conformal"):
        load_bounds(tmp_path / "c.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(RuacError, match="broken JSON"):
        load_bounds(tmp_path / "c.json")
