"""The torchmetrics classes: each against its reference, and the same however the data are divided."""

import numpy as np
import pytest
import torch
from metric_tester import KINDS, Maps, assert_close, make_batches, reference
from scipy import stats
from sklearn import metrics as sk
from torchmetrics import MetricCollection

from ruac.evaluation.metrics import boundary_f, jaccard
from ruac.evaluation.metrics import torchmetrics as ours
from ruac.evaluation.metrics.certainty import rss
from ruac.evaluation.metrics.reliability import ReliabilitySums


def _objects(seed=0, count=500):
    rng = np.random.default_rng(seed)
    true = rng.beta(4, 1.5, count)
    return torch.from_numpy((true + rng.normal(0.05, 0.15, count)).clip(0, 1)), torch.from_numpy(true)


# Class, and the arguments of each update. Four batches each.
CLASSES = {
    "Reliability": (ours.Reliability, [b.arguments() for b in make_batches("ignored")]),
    "PixelMetric": (lambda: ours.PixelMetric("auroc"), [b.arguments() for b in make_batches("float32")]),
    "RSS": (ours.RSS, [b.arguments() for b in make_batches("float32")]),
    "Jaccard": (ours.Jaccard, [(b.prediction, b.target) for b in make_batches("float32")]),
    "BoundaryF": (ours.BoundaryF, [(b.prediction, b.target) for b in make_batches("float32")]),
    "ScoreQuality": (ours.ScoreQuality, [_objects(seed) for seed in range(4)]),
    "MinMaxObjectECE": (ours.MinMaxObjectECE, [_objects(seed) for seed in range(4)]),
    "OodAUROC": (
        ours.OodAUROC,
        [(b.probability ** (1 + i % 2), i % 2 == 0) for i, b in enumerate(make_batches("float32"))],
    ),
}


def _value(metric):
    value = metric.compute()
    return {k: float(v) for k, v in value.items()} if isinstance(value, dict) else {"": float(value)}


def _updated(name, batches):
    metric = CLASSES[name][0]()
    for arguments in batches:
        metric.update(*arguments)
    return metric


@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_metric_against_its_reference(kind):
    batches = make_batches(kind)
    metric = ours.Reliability()
    for batch in batches:
        metric.update(*batch.arguments())
    result = metric.compute()
    assert set(result) == set(ours.HIGHER_IS_BETTER)
    assert_close(result, reference(batches))


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
@pytest.mark.parametrize("name", CLASSES)
def test_merging_order_reset_and_forward(name):
    batches = CLASSES[name][1]
    whole = _updated(name, batches)
    expected = _value(whole)
    shards = [
        _updated(name, batches[2:]),
        _updated(name, batches[:1]),
        _updated(name, batches[1:2]),
        CLASSES[name][0](),
    ]
    for shard in shards[1:]:
        shards[0].merge_state(shard)
    assert _value(shards[0]) == expected
    forward = CLASSES[name][0]()
    first = forward(*batches[0])
    for arguments in batches[1:]:
        forward(*arguments)
    assert _value(forward) == expected
    alone = _value(_updated(name, batches[:1]))
    np.testing.assert_equal(
        {k: float(v) for k, v in first.items()} if isinstance(first, dict) else {"": float(first)}, alone
    )
    whole.reset()
    whole.update(*batches[0])
    np.testing.assert_equal(_value(whole), alone)
    assert all(np.isnan(v) for k, v in _value(CLASSES[name][0]()).items() if k != "pixels")


def test_flags():
    for name, (make, _) in CLASSES.items():
        metric = make()
        assert (metric.is_differentiable, metric.full_state_update) == (False, False), name
    assert ours.PixelMetric("auroc").higher_is_better is True
    assert ours.PixelMetric("ece").higher_is_better is False
    with pytest.raises(ValueError, match="unknown metric 'auc'"):
        ours.PixelMetric("auc")


def test_logits_are_refused_not_squashed():
    with pytest.raises(ValueError, match=r"probability: expected values in \[0, 1\], got -3 to 2"):
        ours.Reliability().update(torch.tensor([-3.0, 2.0]), torch.rand(2), torch.tensor([False, True]))


def test_collection_shares_state():
    batches = make_batches("float32")
    names = ("ece", "auroc", "prr")
    collection = MetricCollection({name: ours.PixelMetric(name) for name in names})
    for batch in batches:
        collection.update(*batch.arguments())
    assert len(collection.compute_groups) == 1
    assert_close(collection.compute(), reference(batches))


def test_rss_from_its_terms():
    batches = make_batches("float32")
    values = reference(batches)
    terms = {
        "miou": np.concatenate([jaccard(b.prediction.numpy(), b.target.numpy()) for b in batches]).mean(),
        "ece": values["ece"],
        "p_acc_cert": values["p_acc_cert_image"],
        "p_unc_inacc": values["p_unc_inacc_image"],
    }
    for weights in ((1, 1, 1, 1), (1, 1 / 3, 1 / 3, 1 / 3)):
        metric = ours.RSS(weights=weights)
        for batch in batches:
            metric.update(*batch.arguments())
        assert float(metric.compute()) == pytest.approx(rss(**terms, weights=weights), abs=1e-6)


def test_object_means():
    batches = make_batches("float32")
    for score, make in ((jaccard, ours.Jaccard), (boundary_f, ours.BoundaryF)):
        metric = make()
        for b in batches:
            metric.update(b.prediction, b.target)
        expected = np.concatenate([score(b.prediction.numpy(), b.target.numpy()) for b in batches]).mean()
        assert float(metric.compute()) == pytest.approx(expected, abs=1e-9)


def test_score_quality_against_scipy_and_scikit_learn():
    batches = CLASSES["ScoreQuality"][1]
    predicted, true = (torch.cat(x).numpy() for x in zip(*batches, strict=True))
    value = _value(_updated("ScoreQuality", batches))
    assert value["iou_pcc"] == pytest.approx(stats.pearsonr(predicted, true).statistic, abs=1e-6)
    assert value["iou_spearman"] == pytest.approx(stats.spearmanr(predicted, true).statistic, abs=0.01)
    assert value["iou_auroc"] == pytest.approx(sk.roc_auc_score(true < 0.75, -predicted), abs=1e-4)
    assert value["iou_gap"] == pytest.approx((predicted - true).mean(), abs=1e-6)


def test_minmax_object_ece_by_hand():
    batches = CLASSES["MinMaxObjectECE"][1]
    confidence, j = (torch.cat(x).numpy() for x in zip(*batches, strict=True))
    stretched = (confidence - confidence.min()) / (confidence.max() - confidence.min())
    index = np.clip(np.ceil(stretched * 15) - 1, 0, 14)
    parts = [index == b for b in range(15)]
    expected = sum(abs(stretched[i].mean() - j[i].mean()) * i.mean() for i in parts if i.any())
    assert _value(_updated("MinMaxObjectECE", batches))[""] == pytest.approx(expected, abs=2e-3)
    ones = np.ones(len(j))
    exact = ours.scores.minmax_object_ece(ones, j, confidence, low=confidence.min(), high=confidence.max())
    assert exact == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="confidence: expected values"):
        ours.MinMaxObjectECE().update(torch.tensor([1.2]), torch.tensor([0.5]))


def test_ood_auroc_of_mean_confidence():
    means = {True: [], False: []}
    for p, source in CLASSES["OodAUROC"][1]:
        means[source] += torch.maximum(p, 1 - p).double().mean(dim=(1, 2)).tolist()
    label = [0] * len(means[True]) + [1] * len(means[False])
    expected = sk.roc_auc_score(label, -np.array(means[True] + means[False]))
    assert _value(_updated("OodAUROC", CLASSES["OodAUROC"][1]))[""] == pytest.approx(expected, abs=1e-9)


def test_sums_hold_the_map_confidence_too():
    inside, outside = ReliabilitySums(), ReliabilitySums()
    for (p, source), batch in zip(CLASSES["OodAUROC"][1], make_batches("float32"), strict=True):
        sums = inside if source else outside
        sums.update(probability=p, uncertainty=batch.uncertainty, target=batch.target, prediction=batch.prediction)
    value = ours.ranking.ood_auroc(inside.map_confidence, outside.map_confidence)
    assert value == pytest.approx(_value(_updated("OodAUROC", CLASSES["OodAUROC"][1]))[""])


def test_pixels_without_places_have_no_patches():
    batch = make_batches("float32")[0]
    flat = Maps(*(x.reshape(-1) for x in batch.arguments()[:4]))
    metric = ours.Reliability()
    metric.update(*flat.arguments())
    result = metric.compute()
    assert np.isnan(result["pavpu_patch"])
    assert not np.isnan(result["spearman"])


def test_answers_in_half_precision_are_taken():
    predicted, true = torch.rand(8), torch.rand(8)
    half, full = ours.ScoreQuality(), ours.ScoreQuality()
    half.update(predicted.bfloat16(), true)
    full.update(predicted.bfloat16().float(), true)
    assert {name: float(value) for name, value in half.compute().items()} == pytest.approx(
        {name: float(value) for name, value in full.compute().items()}, nan_ok=True
    )
