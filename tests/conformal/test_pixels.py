"""Scores of pixels, the regions that share a threshold, and the labels that are kept."""

import numpy as np
import pytest

from ruac.base.errors import RuacError
from ruac.conformal.pixel_scores import IGNORE, fit_pixel_thresholds, pixel_scores, region_quantile
from ruac.conformal.pixel_sets import kept_labels, prediction_sets
from ruac.conformal.quantile import conformal_quantile
from ruac.conformal.regions import KINDS, RegionsConfig, find_regions
from ruac.conformal.shift import effective_count, likelihood_ratios

NAMES = ["background", "cat", "dog"]
SIZE = (10, 12)


def picture(rng, hard=None):
    """Labels of three classes in blobs and probabilities that know them, worse where `hard` is large."""
    labels = rng.integers(0, 3, (5, 6)).repeat(2, 0).repeat(2, 1)
    spread = (1 + (0 if hard is None else hard)) * np.exp(0.5 * rng.standard_normal())
    logits = 4.0 * (labels == np.arange(3)[:, None, None]) - 2 + spread * rng.standard_normal((3, *SIZE))
    return (1 / (1 + np.exp(-logits))).astype(np.float32), labels


def pictures(rng, count, hard=None):
    return [np.stack(column) for column in zip(*(picture(rng, hard) for _ in range(count)), strict=True)]


def scores_of(probability, labels):
    return np.stack([pixel_scores(p, own, NAMES) for p, own in zip(probability, labels, strict=True)])


def test_the_score_is_one_minus_the_probability_of_the_true_class():
    rng = np.random.default_rng(0)
    probability, labels = picture(rng)
    labels[0, :3] = IGNORE
    scores = pixel_scores(probability, labels, NAMES)
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            if labels[y, x] == IGNORE:
                assert np.isnan(scores[y, x])
            else:
                assert scores[y, x] == 1 - probability[labels[y, x], y, x]


def test_a_region_of_one_pixel_has_the_order_statistic():
    rng = np.random.default_rng(1)
    scores = rng.random((50, *SIZE))
    scores[rng.random(scores.shape) < 0.2] = np.nan
    quantile = conformal_quantile(scores, 0.1)
    for y in range(3):
        for x in range(4):
            inside = np.zeros(SIZE, bool)
            inside[y, x] = True
            assert region_quantile(scores, inside, 0.1) == quantile[y, x]


def test_a_region_weighs_pictures_alike_however_many_pixels_they_have():
    scores = np.full((20, 1, 100), np.nan)
    scores[:, 0, 0] = np.linspace(0.05, 1, 20)
    many = scores.copy()
    many[3] = scores[3, 0, 0]  # a hundred pixels of one picture
    whole = np.ones((1, 100), bool)
    assert region_quantile(many, whole, 0.2) == region_quantile(scores, whole, 0.2)
    assert region_quantile(scores[:8], whole, 0.1) == np.inf


@pytest.mark.parametrize("kind", ["image", "location"])
def test_coverage_of_new_pictures_by_simulation(kind):
    """The expected share of true labels in the sets: at least 1 - alpha and hardly more, up to 4 sigma."""
    rng, alpha, draws = np.random.default_rng(2), 0.2, 300
    hard = np.linspace(0, 1, SIZE[1])[None]
    covered = []
    for _ in range(draws):
        probability, labels = pictures(rng, 30, hard)
        scores = scores_of(probability[:-1], labels[:-1])
        found = fit_pixel_thresholds(scores, labels[:-1], NAMES, alpha, RegionsConfig(kind))
        inside = prediction_sets(probability[-1], found)
        covered.append(np.take_along_axis(inside, labels[-1][None], axis=0).mean())
    error = 4 * np.std(covered) / np.sqrt(draws)
    assert 1 - alpha - error <= np.mean(covered) <= 1 - alpha + 2 / 30 + error


def test_each_class_is_covered_by_its_own_threshold_and_not_by_a_common_one():
    rng = np.random.default_rng(3)

    def drawn(count):
        probability, labels = pictures(rng, count)
        return np.where(np.arange(3)[None, :, None, None] == 2, probability * 0.3, probability), labels  # dogs are hard

    probability, labels = drawn(200)
    new, truth = drawn(200)
    kept = {}
    for each in (False, True):
        scores = scores_of(probability, labels)
        found = fit_pixel_thresholds(scores, labels, NAMES, 0.2, RegionsConfig("image"), each=each)
        inside = np.stack([prediction_sets(p, found) for p in new])
        own = np.take_along_axis(inside, truth[:, None], axis=1)[:, 0]
        kept[each] = [own[truth == k].mean() for k in range(3)]
    assert kept[False][2] < 0.6
    assert kept[True] == pytest.approx([0.8] * 3, abs=0.03)


def test_rings_follow_the_radius_and_clusters_the_curves():
    rng = np.random.default_rng(4)
    y, x = np.mgrid[-1:1:20j, -1:1:30j]
    radius = np.hypot(y, x)
    scores = rng.random((60, 20, 30)) * np.where(radius < 0.6, 0.2, 0.9)
    rings = find_regions(scores, RegionsConfig("annuli", count=2))
    inner = rings[10, 15]
    assert (((rings == inner) == (radius < 0.6)).mean()) > 0.97
    order = np.argsort(radius.ravel(), kind="stable")
    assert (np.diff(rings.ravel()[order]) != 0).sum() <= 2  # ring after ring, but for equal radii
    stripes = rng.random((60, 20, 30)) * np.where(np.arange(30) % 2, 0.2, 0.9)
    clusters = find_regions(stripes, RegionsConfig("clusters", count=2))
    assert (clusters == clusters[0]).all()
    assert (clusters[0, ::2] == clusters[0, 0]).all()
    assert (clusters[0, 1::2] != clusters[0, 0]).all()
    assert len(np.unique(find_regions(scores, RegionsConfig("annuli", count=5)))) == 5


def test_places_without_enough_pictures_take_the_threshold_of_the_picture():
    rng = np.random.default_rng(5)
    probability, labels = pictures(rng, 40)
    labels[10:, 0, 0] = IGNORE
    labels[:, 0, 1] = IGNORE
    scores = scores_of(probability, labels)
    found = fit_pixel_thresholds(scores, labels, NAMES, 0.05, RegionsConfig("location"))
    whole = fit_pixel_thresholds(scores, labels, NAMES, 0.05, RegionsConfig("image")).values[0, 0, 0]
    assert found.values[0, 0, 0] == found.values[0, 0, 1] == whole
    assert found.fallback == pytest.approx(2 / 120)
    assert found.values[0, 5, 5] == np.float32(conformal_quantile(scores, 0.05)[5, 5])


@pytest.mark.parametrize("kind", KINDS)
def test_thresholds_lie_on_the_picture_whatever_its_size(kind):
    rng = np.random.default_rng(6)
    probability, labels = pictures(rng, 30)
    found = fit_pixel_thresholds(scores_of(probability, labels), labels, NAMES, 0.1, RegionsConfig(kind, count=3))
    assert (found.at(SIZE) == found.values).all()
    assert (found.at((20, 24))[:, ::2, ::2] == found.values).all()
    assert found.at((3, 100)).shape == (1, 3, 100)


def by_hand(probability, threshold, filter, background):
    """Equation 4, pixel by pixel."""
    labels = np.full(probability.shape[1:], IGNORE, np.uint8)
    for y, x in np.ndindex(labels.shape):
        p = probability[:, y, x]
        inside = [k for k in range(len(p)) if 1 - p[k] <= threshold]
        if filter == "none":
            labels[y, x] = max(range(len(p)), key=lambda k: p[k])
        elif filter == "marginal":
            best = max(range(len(p)), key=lambda k: p[k])
            labels[y, x] = best if best in inside else IGNORE
        elif inside:
            objects = [k for k in inside if k != 0]
            choice = objects if background and objects else inside
            labels[y, x] = max(choice, key=lambda k: p[k])
    return labels


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("filter", ["class_conditional", "marginal", "none"])
def test_kept_labels_are_equation_4(filter, background):
    rng = np.random.default_rng(7)
    probability, labels = pictures(rng, 40, np.ones(SIZE))
    found = fit_pixel_thresholds(scores_of(probability, labels), labels, NAMES, 0.3, RegionsConfig("image"))
    differs = 0
    for p in probability:
        kept = kept_labels(p, found, filter=filter, background=background)
        assert (kept == by_hand(p, found.values[0, 0, 0], filter, background)).all()
        differs += (kept != kept_labels(p, found, filter="none", background=background)).sum()
    assert (differs > 0) == (filter != "none")


def test_half_keeps_what_has_more_than_one_half_whatever_the_sets():
    probability = np.array([[[0.9, 0.5, 0.1]], [[0.05, 0.5, 0.2]]], np.float32)
    assert kept_labels(probability, None, filter="half", background=True).tolist() == [[0, IGNORE, IGNORE]]


def test_foreground_wins_only_over_a_background():
    probability = np.array([[0.9, 0.9, 0.2], [0.6, 0.1, 0.1], [0.5, 0.2, 0.3]], np.float32)[:, None]
    found = fit_pixel_thresholds(
        np.full((20, 1, 3), 0.5), np.arange(20).repeat(3).reshape(20, 1, 3) % 3, NAMES, 0.1, RegionsConfig("image")
    )
    assert kept_labels(probability, found, filter="class_conditional", background=True).tolist() == [[1, 0, IGNORE]]
    assert kept_labels(probability, found, filter="class_conditional", background=False).tolist() == [[0, 0, IGNORE]]


def fitted(probability=None, labels=None, alpha=0.1, **options):
    rng = np.random.default_rng(8)
    own = pictures(rng, 30)
    probability, labels = (a if b is None else b for a, b in zip(own, (probability, labels), strict=True))
    return fit_pixel_thresholds(scores_of(own[0], own[1]), labels, NAMES, alpha, RegionsConfig(), **options)


def test_bad_input():
    rng = np.random.default_rng(9)
    probability, labels = pictures(rng, 30)
    with pytest.raises(RuacError, match="found label 7, expected 0 to 2 or 255"):
        pixel_scores(probability[0], np.where(labels[0] == 1, 7, labels[0]), NAMES)
    with pytest.raises(RuacError, match="logits need a sigmoid"):
        pixel_scores(probability[0] * 9 - 4, labels[0], NAMES)
    with pytest.raises(RuacError, match="found nan"):
        pixel_scores(probability[0] * np.nan, labels[0], NAMES)
    with pytest.raises(RuacError, match="class 'dog' is on none of its 30 pictures"):
        fitted(labels=np.where(labels == 2, 0, labels))
    with pytest.raises(RuacError, match=r"labelled subset: 30 images, but alpha=0.01 needs at least 99"):
        fitted(alpha=0.01)
    few = np.where((labels == 2) & (np.arange(30) > 4)[:, None, None], 0, labels)
    with pytest.raises(RuacError, match=r"class 'dog': 5 images, but alpha=0.1 needs at least 9"):
        fitted(labels=few, each=True)
    with pytest.raises(RuacError, match="alpha"):
        fitted(alpha=0)
    with pytest.raises(RuacError, match=r"regions.kind: 'ring', expected location or image"):
        RegionsConfig("ring").validate()
    with pytest.raises(RuacError, match="filter"):
        kept_labels(probability[0], fitted(), filter="some", background=True)


def test_likelihood_ratios_of_two_normal_laws():
    rng = np.random.default_rng(10)
    source, target = rng.standard_normal((3000, 2)), rng.standard_normal((1000, 2)) + np.array([1, 0])
    found = np.concatenate(likelihood_ratios(source, target))
    true = np.exp(np.concatenate([source, target])[:, 0] - 0.5)
    assert np.corrcoef(np.log(found), np.log(true))[0, 1] > 0.99
    assert np.median(found / true) == pytest.approx(1, abs=0.15)
    assert effective_count(np.ones(7)) == pytest.approx(7)
    assert effective_count(np.array([1.0, 0, 0])) == 1
    with pytest.raises(RuacError, match="1 target"):
        likelihood_ratios(source, target[:1])
