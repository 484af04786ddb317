"""Reliability of masks: features, the monotone reader, thresholds of risk, and its file."""

import json

import numpy as np
import pytest

from ruac.base.errors import RuacError
from ruac.fitting.reliability import ReliabilityConfig, fit_reader, risk_curve, run_reliability
from ruac.inference.expected_iou import LEVELS, expected_iou, joint_iou
from ruac.inference.predictor import Predictor
from ruac.inference.reliability import Reader, load_reliability, mask_features


def test_expected_iou_of_both_kinds_against_sampling():
    rng = np.random.default_rng(0)
    probability = rng.random((3, 20, 30)) ** 2
    masks = probability > rng.random((3, 1, 1))
    alone, joint = [], []
    for mask, p in zip(masks, probability, strict=True):
        drawn = [rng.random(p.shape) < p for _ in range(500)]
        alone.append(np.mean([(mask & t).sum() / (mask | t).sum() for t in drawn]))
        levels = [p > (k + 0.5) / LEVELS for k in range(LEVELS)]
        joint.append(np.mean([(mask & t).sum() / (mask | t).sum() for t in levels]))
    np.testing.assert_allclose(expected_iou(masks, probability), alone, atol=0.005)
    np.testing.assert_allclose(joint_iou(masks, probability), joint, rtol=1e-6)
    assert joint_iou(masks[None], probability[None]).shape == (1, 3)
    empty = np.zeros((4, 4), bool)
    assert expected_iou(empty, empty.astype(float)) == joint_iou(empty, empty.astype(float)) == 1


def masks_with_two_informative_features(count=4000, seed=0):
    rng = np.random.default_rng(seed)
    good, other, noise = rng.normal(size=(3, count))
    truth = 1 / (1 + np.exp(-(0.5 + 1.5 * good + 0.7 * other)))
    features = {"predicted_iou": good, "expected_iou": other, "joint_iou": noise, "agreement": -good}
    return {name: 1 / (1 + np.exp(-value)) for name, value in features.items()}, truth


def test_the_fit_finds_the_weights_and_gives_none_to_noise_or_to_what_points_the_wrong_way():
    features, iou = masks_with_two_informative_features()
    reader = fit_reader(features, iou)
    assert reader.weights["predicted_iou"] == pytest.approx(1.5, abs=0.01)
    assert reader.weights["expected_iou"] == pytest.approx(0.7, abs=0.01)
    assert reader.bias == pytest.approx(0.5, abs=0.01)
    assert reader.weights["joint_iou"] < 0.01
    wrong = fit_reader({"agreement": features["agreement"]}, iou)
    assert wrong.weights["agreement"] == 0
    np.testing.assert_allclose(reader.read(features), iou, atol=0.01)


def test_the_fit_agrees_with_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    features, truth = masks_with_two_informative_features()
    del features["agreement"]
    label = np.random.default_rng(1).random(len(truth)) < truth
    inputs = np.stack([np.log(f / (1 - f)) for f in features.values()], axis=1)
    reference = linear.LogisticRegression(C=1e6).fit(inputs, label)
    assert (reference.coef_ > 0).all(), "no weight at its bound in this draw"
    reader = fit_reader(features, label.astype(float))
    np.testing.assert_allclose(list(reader.weights.values()), reference.coef_[0], atol=0.01)


def test_a_mask_that_is_better_in_everything_is_never_less_reliable():
    features, iou = masks_with_two_informative_features(200)
    reader = fit_reader(features, np.random.default_rng(0).permutation(iou))
    better = {name: np.minimum(values + 0.1, 1) for name, values in features.items()}
    assert (reader.read(better) >= reader.read(features)).all()


def test_accepted_masks_keep_the_risk_on_other_masks_like_those_of_the_fit():
    features, iou = masks_with_two_informative_features()
    reader = fit_reader(features, iou)
    others, truth = masks_with_two_informative_features(seed=1)
    reliability = reader.read(others)
    for risk in (0.1, 0.2, 0.3):
        accepted = reliability >= reader.threshold_for(risk)
        assert 1 - truth[accepted].mean() == pytest.approx(risk, abs=0.01)
    assert (reliability >= reader.threshold_for(1)).mean() > 0.999
    assert reader.threshold_for(0) == np.inf
    with pytest.raises(RuacError, match=r"risk: 1.5, expected"):
        reader.threshold_for(1.5)


def test_the_curve_takes_equal_reliabilities_together():
    threshold, risk = risk_curve(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1.0, 0.0, 1.0, 0.0]))
    assert threshold == [0.1, 0.5, 0.9]
    np.testing.assert_allclose(risk, [0.5, 1 / 3, 0])


@pytest.fixture(scope="module")
def fitted(shelf, coco_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted")
    config = ReliabilityConfig(
        source=str(coco_folder),
        export=str(shelf / "head"),
        backbone=str(shelf / "backbone.yaml"),
        looks=["", "flip"],
        out=str(out),
        cpu=True,
    )
    return run_reliability(config)


def test_a_predictor_reads_it(fitted, shelf):
    predictor = Predictor(shelf / "head", backbone=str(shelf / "backbone.yaml"), reliability=fitted, device="cpu")
    predictor.set_image(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    box = [[5, 5, 40, 40], [1, 1, 20, 20]]
    answer = predictor.predict(box=box)
    assert answer.reliability.shape == (2, 3)
    assert answer.reliability.dtype == np.float32
    content = json.loads(fitted.read_text())
    reader = Reader(**content["readers"][""])
    features = mask_features(answer.masks, answer.probability, answer.scores)
    np.testing.assert_array_equal(answer.reliability, reader.read(features))
    accepted = predictor.accept(answer, 1.0)
    np.testing.assert_array_equal(accepted, answer.reliability >= min(reader.threshold))
    looked = predictor.predict(box=box, looks=["flip"])
    assert looked.reliability.shape == (2, 1)
    assert predictor.accept(looked, 1.0, looks="flip").shape == (2, 1)
    assert predictor.predict(box=box, looks=["zoom"]).reliability is None, "nothing was fitted for zoom"
    assert content["readers"]["flip"]["weights"].keys() == {*features, "agreement"}


def test_a_predictor_without_it(shelf):
    predictor = Predictor(shelf / "head", backbone=str(shelf / "backbone.yaml"), device="cpu")
    predictor.set_image(np.zeros((48, 64, 3), np.uint8))
    answer = predictor.predict(box=[1, 1, 20, 20])
    assert answer.reliability is None
    with pytest.raises(RuacError, match="accept: no reliability for looks"):
        predictor.accept(answer, 0.2)


def test_files_that_are_none(fitted, tmp_path):
    identity = json.loads(fitted.read_text())["identity"]
    assert load_reliability(fitted.parent, identity).identity == identity
    with pytest.raises(RuacError, match="fitted for another model"):
        load_reliability(fitted, identity | {"sha256": "0"})
    with pytest.raises(RuacError, match="reliability not found"):
        load_reliability(tmp_path / "absent.json", identity)
    for number, change in enumerate(({"format": 2}, {"readers": {"": {"weight": {}}}}, {"readers": 3})):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(json.loads(fitted.read_text()) | change))
        with pytest.raises(RuacError, match=rf"{number}\.json"):
            load_reliability(path, identity)
    content = json.loads(fitted.read_text())
    content["readers"][""]["weights"]["predicted_iou"] = -1.0
    (tmp_path / "negative.json").write_text(json.dumps(content))
    with pytest.raises(RuacError, match="no negative weight"):
        load_reliability(tmp_path / "negative.json", identity)


def test_too_few_masks():
    with pytest.raises(RuacError, match="3 masks, expected at least 10"):
        fit_reader({"predicted_iou": np.full(3, 0.5)}, np.full(3, 0.5))
