"""Sums against the pixels they were made from."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk

from ruac.base.errors import RuacError
from ruac.evaluation.metrics import bins, reliability
from ruac.evaluation.metrics import pixels as one_pass
from ruac.evaluation.metrics.reliability import ReliabilitySums, update_sums


def _entropy(p):
    q = p.astype(np.float64)
    return (-(q * np.log2(q) + (1 - q) * np.log2(1 - q))).clip(0, 1).astype(np.float32)


def _pixels(kind, n=200_000, seed=0):
    rng = np.random.default_rng(seed)
    logit = rng.normal(-3, 3, n)
    p = (1 / (1 + np.exp(-logit))).clip(1e-6, 1 - 1e-6).astype(np.float32)
    prediction = logit > 0
    target = rng.random(n) < 1 / (1 + np.exp(-0.7 * logit))
    wrong = prediction != target
    u = {
        "entropy": lambda: _entropy(p),
        "uniform": lambda: 0.8 * rng.random(n) + 0.2 * wrong * rng.random(n),
        "near zero": lambda: np.exp(rng.normal(-10, 2, n) + wrong).clip(0, 1),
        "near one": lambda: 1 - np.exp(rng.normal(-9, 1.5, n) - wrong).clip(0, 1),
        "ten values": lambda: np.round(9 * (0.7 * rng.beta(0.5, 2, n) + 0.3 * wrong)) / 9,
        "saturated": lambda: np.where(rng.random(n) < 0.6 - 0.2 * wrong, 0, rng.random(n)),
    }[kind]()
    return dict(probability=p, uncertainty=u.astype(np.float32), target=target, prediction=prediction)


def _sums(pixels):
    sums = ReliabilitySums()
    sums.update(**pixels)
    return sums


@pytest.fixture(params=["compiled", "tensors"], autouse=True)
def path(request, monkeypatch):
    """Every test once compiled for the CPU, and once as on other devices."""
    monkeypatch.setattr(reliability, "COMPILED", ("cpu",) if request.param == "compiled" else ())
    return request.param


PER_MAP = ("at_median", "map_confidence", "patches")  # pixels torn from their map count differently here


def _same(one, two, but=()):
    arrays = two.to_arrays()
    return all(np.array_equal(values, arrays[name]) for name, values in one.to_arrays().items() if name not in but)


@pytest.mark.parametrize("kind", ["entropy", "uniform", "near zero", "near one", "ten values", "saturated"])
def test_ranking_within_1e4_of_exact_on_a_million_pixels(kind):
    pixels = _pixels(kind, n=1_000_000)
    result = _sums(pixels).compute()
    u, wrong = pixels["uncertainty"], pixels["prediction"] != pixels["target"]
    auroc = sk.roc_auc_score(wrong, u)
    assert result["auroc"] == pytest.approx(auroc, abs=1e-4)
    assert result["aupr"] == pytest.approx(sk.average_precision_score(wrong, u), abs=1e-4)
    assert result["prr"] / 100 == pytest.approx(2 * auroc - 1, abs=1e-4)
    fpr, tpr, _ = sk.roc_curve(wrong, u)
    assert result["fpr95"] == pytest.approx(fpr[tpr >= 0.95].min(), abs=1e-3)
    # Tied pixels in random order: each is expected to be wrong as often as its group.
    _, group, size = np.unique(u, return_inverse=True, return_counts=True)
    expected = (np.bincount(group, weights=wrong) / size)[np.sort(group)]
    aurc = (np.cumsum(expected) / np.arange(1, len(u) + 1)).mean()
    assert result["aurc"] == pytest.approx(aurc, abs=1e-4)
    assert result["accuracy"] == pytest.approx(1 - wrong.mean(), abs=1e-12)


def test_calibration_against_the_pixels():
    from torchmetrics.functional.classification import binary_calibration_error  # after ruac has mended torchvision

    pixels = _pixels("entropy")
    result = _sums(pixels).compute()
    p = pixels["probability"].astype(np.float64)
    target, right = pixels["target"], pixels["prediction"] == pixels["target"]
    confidence = np.maximum(p, 1 - p)
    # torchmetrics bins p(foreground) against the label when told so; give it confidence and "correct" instead.
    for norm, name in (("l1", "ece"), ("max", "mce")):
        reference = binary_calibration_error(torch.tensor(confidence), torch.tensor(right).long(), 15, norm)
        assert result[name] == pytest.approx(float(reference), abs=1e-6)
    order = np.argsort(confidence, kind="stable")
    parts = zip(np.array_split(confidence[order], 15), np.array_split(right[order], 15), strict=True)
    adaptive = sum(abs(c.mean() - r.mean()) * len(c) for c, r in parts) / len(p)
    assert result["adaptive_ece"] == pytest.approx(adaptive, abs=1e-4)
    running = np.abs(np.cumsum(right[order] - confidence[order])).max() / len(p)
    assert result["ks"] == pytest.approx(running, abs=1e-5)
    assert result["brier"] == pytest.approx(sk.brier_score_loss(target, p), abs=2.0**-24)
    assert result["nll"] == pytest.approx(sk.log_loss(target, p), abs=2.0**-20)


def test_bins_of_confidence_are_exact():
    pixels = _pixels("entropy")
    pixels["probability"][:3] = 0.5, 1.0, 0.0
    count, correct, total = _sums(pixels).confidence_bins()
    p = pixels["probability"]
    confidence = np.maximum(p, 1 - p)
    right = pixels["prediction"] == pixels["target"]
    index = np.searchsorted(np.linspace(0, 1, 16).astype(np.float32), confidence, side="left") - 1  # (lower, upper]
    np.testing.assert_array_equal(count, np.bincount(index, minlength=15))
    np.testing.assert_array_equal(correct, np.bincount(index, weights=right, minlength=15))
    np.testing.assert_array_equal(total, np.bincount(index, weights=confidence.astype(np.float64), minlength=15))


def test_bins_of_uncertainty_keep_the_order_and_hold_what_their_edges_say():
    u = np.concatenate([_pixels(k, n=20_000)["uncertainty"] for k in ("uniform", "near zero", "near one")])
    u = np.sort(np.concatenate([u, [0, 0.5, 1], np.array(bins.TAUS)]).astype(np.float32))
    index = bins.uncertainty_bin(torch.from_numpy(u)).numpy()
    assert (np.diff(index) >= 0).all()
    edges = bins.UNCERTAINTY_EDGES
    assert (u >= edges[index] - 1e-7).all()
    assert (u <= edges[index + 1] + 1e-7).all()
    index = bins.rank_bin(torch.from_numpy(u)).numpy()
    assert (np.diff(index) >= 0).all()
    assert (index[0], index[-1]) == (0, bins.RANK_BINS - 1)
    assert bins.rank_bin(torch.tensor([0.5, 0.49999, 0.50001, -0.0])).tolist() == [255, 255, 256, 0]
    c = np.linspace(0.5, 1, 100_001, dtype=np.float32)
    index = bins.confidence_bin(torch.from_numpy(c)).numpy()
    assert (np.diff(index) >= 0).all()
    assert index[0] == 0
    assert index[-1] == len(bins.CONFIDENCE_EDGES) - 2


def test_thresholds():
    pixels = _pixels("entropy")
    tau = np.float32(bins.TAUS[0])
    pixels["uncertainty"][:4] = tau, np.nextafter(tau, np.float32(1)), 0, 1
    sums = _sums(pixels)
    result = sums.compute()
    u, wrong = pixels["uncertainty"], pixels["prediction"] != pixels["target"]
    exact = [(wrong == (u > np.float32(nats / np.log(2)))).mean() for nats in (0.01, 0.05, 0.1)]
    assert [result[f"pavpu_{nats:g}"] for nats in (0.01, 0.05, 0.1)] == pytest.approx(exact, abs=1e-12)
    assert result["pavpu"] == pytest.approx(np.mean(exact), abs=1e-12)
    assert result["median_uncertainty"] == pytest.approx(np.median(u), rel=1e-3)
    for threshold, given in ((np.median(u), None), (0.3, 0.3)):
        result = sums.compute(threshold=given)
        assert result["p_acc_cert"] == pytest.approx((~wrong)[u <= threshold].mean(), abs=1e-4)
        assert result["p_unc_inacc"] == pytest.approx((u > threshold)[wrong].mean(), abs=1e-3)


def test_correlation_of_uncertainty_and_error():
    pixels = _pixels("entropy")
    error = np.abs(pixels["probability"].astype(np.float64) - pixels["target"])
    assert _sums(pixels).compute()["pcc"] == pytest.approx(
        stats.pearsonr(pixels["uncertainty"].astype(np.float64), error).statistic, abs=1e-6
    )
    pixels["uncertainty"][:] = 0.3
    assert np.isnan(_sums(pixels).compute()["pcc"])


def test_any_split_in_any_order_gives_the_same_sums(monkeypatch):
    pixels = _pixels("entropy", n=30_011)
    whole = _sums(pixels)
    cuts = np.array_split(np.random.default_rng(0).permutation(30_011), 7)
    parts = [_sums({k: v[c] for k, v in pixels.items()}) for c in cuts]
    assert _same(sum(parts[1:], parts[0]), whole, but=PER_MAP)
    assert _same(sum(parts[:-1], parts[-1]), sum(parts[1:], parts[0]))
    assert _same(parts[0] + ReliabilitySums(), parts[0])
    monkeypatch.setattr(one_pass, "BLOCK", 1000)
    assert _same(_sums(pixels), whole)


def test_objects_at_once_and_region():
    pixels = {k: v.reshape(3, 40, 50) for k, v in _pixels("entropy", n=6000).items()}
    region = np.random.default_rng(0).random((3, 40, 50)) < 0.3
    sums = ReliabilitySums()
    sums.update(**{k: torch.from_numpy(v) for k, v in pixels.items()}, region=region)
    assert _same(sums, _sums({k: v[region] for k, v in pixels.items()}), but=PER_MAP)
    assert sums.count == region.sum()
    assert sum((_sums({k: v[n] for k, v in pixels.items()}) for n in range(3)), ReliabilitySums()).count == 6000


def test_one_pass_for_scores_and_regions_equals_an_update_for_each():
    maps = {k: v.reshape(3, 40, 50) for k, v in _pixels("entropy", n=6000).items()}
    scores = {"a": maps.pop("uncertainty"), "b": _pixels("ten values", n=6000)["uncertainty"].reshape(3, 40, 50)}
    rng = np.random.default_rng(0)
    left = np.zeros((3, 40, 50), bool)
    left[:2, 7:30, :21] = True  # one map has none of it
    for regions in ({"image": None, "left": left, "some": rng.random((3, 40, 50)) < 0.3}, {"left": left}):
        together = {(score, region): ReliabilitySums() for score in scores for region in regions}
        update_sums(together, **maps, uncertainty=scores, regions=regions)
        for (score, region), sums in together.items():
            alone = ReliabilitySums()
            alone.update(**maps, uncertainty=scores[score], region=regions[region])
            assert _same(sums, alone)
            assert sums.count == (6000 if regions[region] is None else regions[region].sum())
    with pytest.raises(ValueError, match="uncertainty b: contains NaN"):
        update_sums(together, **maps, uncertainty=scores | {"b": scores["b"] * np.nan}, regions=regions)


@pytest.mark.parametrize("kind", ["entropy", "near zero", "near one", "ten values", "saturated"])
@pytest.mark.parametrize("threads", [1, 3])
def test_both_passes_count_the_same(kind, threads, monkeypatch):
    """A root may be rounded differently, which moves a pixel by one bin, and so may a logarithm."""
    maps = {k: v.reshape(7, 61, 47) for k, v in _pixels(kind, n=7 * 61 * 47).items()}
    maps["probability"][0, 0, :4] = maps["uncertainty"][1, 0, :4] = 0.0, -0.0, 0.5, 1.0
    region = np.random.default_rng(0).random((7, 61, 47)) < 0.2
    region[2] = False
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for mask in (None, region):
        found = []
        for types in (("cpu",), ()):
            monkeypatch.setattr(reliability, "COMPILED", types)
            found.append(_sums(maps | {"region": mask}))
        ours, theirs = (sums.to_arrays() for sums in found)
        for name in ("confidence", "uncertainty"):
            running = np.cumsum(ours[name] - theirs[name], axis=1)
            assert np.abs(running).max() <= 1
            assert np.count_nonzero(running) < 1e-3 * maps["uncertainty"].size
        assert np.abs(ours["moments"] - theirs["moments"]).tolist()[:-1] == [0] * 5
        assert ours["moments"][-1] == pytest.approx(theirs["moments"][-1], rel=1e-7)
        for name in ("ranks", "at_median", "patches", "foreground", "foreground_sum"):
            np.testing.assert_array_equal(ours[name], theirs[name])
        assert ours["confidence_sum"].sum() == theirs["confidence_sum"].sum()
        assert np.abs(np.cumsum(ours["map_confidence"] - theirs["map_confidence"])).max() <= 1


@pytest.mark.parametrize("values", [(0.3, 0.6, 0.2), (0.0, 1.0, 0.5), (1e-9, 1 - 1e-7, bins.TAUS[1])])
def test_one_value_for_a_whole_map_may_be_an_expanded_tensor(values):
    maps = {k: torch.from_numpy(v).reshape(3, 60, 50) for k, v in _pixels("entropy", n=9000).items()}
    region = torch.rand(3, 60, 50, generator=torch.Generator().manual_seed(0)) < 0.4
    region[1] = False  # no pixel of the second map
    expanded = torch.tensor(values)[:, None, None].expand(3, 60, 50)
    for mask in (None, region):
        sums = _sums(maps | {"uncertainty": expanded, "region": mask})
        assert _same(sums, _sums(maps | {"uncertainty": expanded.clone(), "region": mask}))
        assert sums.count == (9000 if mask is None else int(region.sum()))
        assert sums.at_median[:, 1].sum() == 0  # no pixel lies above its map's median


def test_whole_maps_in_any_groups_give_the_same_sums(monkeypatch):
    maps = {k: v.reshape(5, 30, 40) for k, v in _pixels("entropy", n=6000).items()}
    whole = _sums(maps)
    parts = [_sums({k: v[cut] for k, v in maps.items()}) for cut in ([3], [0, 4], [2, 1])]
    assert _same(sum(parts[1:], parts[0]), whole)
    monkeypatch.setattr(one_pass, "GROUP", 3000)
    assert _same(_sums(maps), whole)


def test_an_older_state_can_be_read_but_has_no_newer_metrics():
    maps = {k: v.reshape(5, 30, 40) for k, v in _pixels("entropy", n=6000).items()}
    sums = _sums(maps)
    kept = ("confidence", "confidence_sum", "uncertainty", "moments")
    old = ReliabilitySums.from_arrays({k: v for k, v in sums.to_arrays().items() if k in kept})
    for state in (old, old + sums):  # neither may pass for complete
        result = state.compute()
        newer = {"spearman", "ece_foreground", "p_acc_cert_image", "p_unc_inacc_image", "pavpu_patch"}
        assert {key for key, value in result.items() if np.isnan(value)} == newer
    assert old.compute()["auroc"] == sums.compute()["auroc"]


def test_arrays_survive_a_file(tmp_path):
    sums = _sums(_pixels("entropy", n=5000))
    np.savez_compressed(tmp_path / "sums.npz", **sums.to_arrays())
    with np.load(tmp_path / "sums.npz") as saved:
        back = ReliabilitySums.from_arrays(saved)
    assert _same(back, sums)
    back.update(**_pixels("entropy", n=10))
    assert sums.count == 5000  # a copy
    arrays = sums.to_arrays()
    with pytest.raises(RuacError, match="'moments' is missing"):
        ReliabilitySums.from_arrays({k: v for k, v in arrays.items() if k != "moments"})
    with pytest.raises(RuacError, match=r"'uncertainty' is int64 \[2, 9\]"):
        ReliabilitySums.from_arrays({**arrays, "uncertainty": np.zeros((2, 9), np.int64)})
    with pytest.raises(RuacError, match="'moments' is float64"):
        ReliabilitySums.from_arrays({**arrays, "moments": arrays["moments"] * 1.0})


def test_empty_and_one_class():
    empty = _sums(_pixels("entropy", n=0))
    result = empty.compute()
    assert result.pop("pixels") == 0
    assert all(np.isnan(v) for v in result.values())
    pixels = _pixels("entropy", n=100)
    pixels["target"] = pixels["prediction"]
    result = _sums(pixels).compute()
    assert result["accuracy"] == 1
    assert result["aurc"] == 0
    assert np.isnan([result[k] for k in ("auroc", "aupr", "fpr95", "prr", "ause", "p_unc_inacc")]).all()


def test_saturated_probabilities_stay_finite():
    pixels = dict(
        probability=np.array([0, 1, 0, 1, 0.5], np.float32),
        uncertainty=np.array([0, 0, 1, 1, 1], np.float32),
        target=np.array([True, False, False, True, True]),
        prediction=np.array([False, True, False, True, True]),
    )
    result = _sums(pixels).compute()
    assert result["nll"] == pytest.approx((2 * 23 + 1) * np.log(2) / 5, abs=1e-5)
    assert result["brier"] == pytest.approx(2.25 / 5)
    assert result["auroc"] == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("probability", np.nan, "probability: contains NaN"),
        ("uncertainty", np.nan, "uncertainty: contains NaN"),
        ("probability", 1.5, r"probability: expected values in \[0, 1\], got .* to 1.5"),
        ("uncertainty", -0.1, r"uncertainty: expected values in \[0, 1\], got -0.1"),
        ("uncertainty", np.inf, "uncertainty: expected values"),
    ],
)
def test_bad_values_are_named_and_nothing_is_added(name, value, message):
    pixels = _pixels("uniform", n=100)
    pixels[name][50] = value
    sums = ReliabilitySums()
    with pytest.raises(ValueError, match=message):
        sums.update(**pixels)
    assert _same(sums, ReliabilitySums())


def test_bad_shapes_and_dtypes_are_named():
    pixels = _pixels("uniform", n=100)
    with pytest.raises(ValueError, match="target: shape"):
        _sums({**pixels, "target": pixels["target"][:50]})
    with pytest.raises(ValueError, match="prediction: expected bool"):
        _sums({**pixels, "prediction": pixels["prediction"].astype(np.uint8)})
    with pytest.raises(ValueError, match="probability: expected floating"):
        _sums({**pixels, "probability": pixels["target"]})


def test_too_many_pixels_are_refused(monkeypatch):
    monkeypatch.setattr(reliability, "MAX_PIXELS", 150)
    sums = _sums(_pixels("uniform", n=100))
    with pytest.raises(ValueError, match="more than 150 pixels"):
        sums.update(**_pixels("uniform", n=51))
    with pytest.raises(ValueError, match="more than 150 pixels"):
        sums.merge(_sums(_pixels("uniform", n=51)))
    assert sums.count == 100


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_counts_equal_cpu_counts():
    pixels = _pixels("entropy")
    cpu, cuda = _sums(pixels), _sums({k: torch.from_numpy(v).cuda() for k, v in pixels.items()})
    for name, values in cpu.to_arrays().items():
        if name != "moments":
            np.testing.assert_array_equal(cuda.to_arrays()[name], values)
    np.testing.assert_allclose(cuda.moments, cpu.moments, rtol=1e-6)  # a device's log may differ in the last bit
