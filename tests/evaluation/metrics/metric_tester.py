"""One tester for all metrics: inputs of every awkward kind, and what each metric should be by an outside definition.

A reference sees the same pixels as float64 arrays of whole maps and computes by sorting, with scikit-learn, scipy and
torchmetrics, or by loops over patches. It shares no code with the package.
"""

import ruac  # noqa: F401, I001  (first of all: it mends torchvision for torchmetrics)

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_calibration_error

TOLERANCE = {"spearman": 5e-3, "fpr95": 2e-3, "aupr": 1e-3, "median_uncertainty": 1e-3}  # others 1e-4
NATS = (0.01, 0.05, 0.1)


@dataclass
class Maps:
    """A batch: ``[N, H, W]`` each; ignore may be None."""

    probability: torch.Tensor
    uncertainty: torch.Tensor
    target: torch.Tensor
    prediction: torch.Tensor
    ignore: torch.Tensor | None = None

    def arguments(self):
        return (self.probability, self.uncertainty, self.target, self.prediction, self.ignore)


KINDS = ("float32", "float64", "ties", "ignored", "all correct", "all wrong", "empty", "all ignored")


def make_batches(kind: str, batches: int = 4, seed: int = 0) -> list[Maps]:
    """Batches of two or three maps of 42x38, a size that no patch divides."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(batches):
        shape = (0 if kind == "empty" else 2 + index % 2, 42, 38)
        logit = rng.normal(-1.5, 3, shape)
        p = 1 / (1 + np.exp(-logit))
        target = rng.random(shape) < 1 / (1 + np.exp(-0.6 * logit))
        prediction = logit > 0.2  # not always p > 1/2
        u = (-(p * np.log2(p) + (1 - p) * np.log2(1 - p)) * rng.uniform(0.5, 1, shape)).clip(0, 1)
        if kind == "ties":
            p, u = (16 * p).round().clip(1, 15) / 16, (4 * u).round() / 4
        if kind == "all correct":
            target = prediction
        if kind == "all wrong":
            target = ~prediction
        ignore = {"ignored": rng.random(shape) < 0.4, "all ignored": np.ones(shape, bool)}.get(kind)
        if kind == "ignored":
            ignore[:, 10:30, 5:15] = True  # whole patches
        dtype = torch.float64 if kind == "float64" else torch.float32
        p, u = (torch.from_numpy(x).to(dtype) for x in (p, u))
        ignore = None if ignore is None else torch.from_numpy(ignore)
        made.append(Maps(p, u, torch.from_numpy(target), torch.from_numpy(prediction), ignore))
    return made


def reference(batches: list[Maps]) -> dict[str, float]:
    """Every pixel metric by another road; nan where it has no value."""
    maps = [_map(batch, index) for batch in batches for index in range(len(batch.probability))]
    p, u, target, prediction = (
        np.concatenate([m[k][m["seen"]] for m in maps] or [np.zeros(0)]) for k in ("p", "u", "target", "prediction")
    )
    wrong = target != prediction
    if not len(p):
        return {}
    error, confidence, right = np.abs(p - target), np.maximum(p, 1 - p), ~wrong
    result = {
        "pixels": len(p),
        "accuracy": right.mean(),
        "ece": _calibration(confidence, right, "l1"),
        "mce": _calibration(confidence, right, "max"),
        "ece_foreground": _calibration(p, target, "l1"),
        "brier": ((p - target) ** 2).mean(),
        "nll": sk.log_loss(target, p, labels=[False, True]),
        "mean_uncertainty": u.mean(),
        "median_uncertainty": np.median(u),
        "pcc": stats.pearsonr(u, error).statistic,
        "spearman": stats.spearmanr(u, error).statistic,
    }
    # Tied pixels are in random order, so each is expected to be as right as its group.
    order, mean_right = np.sort(confidence), _mean_of_ties(confidence, right)
    cuts = np.interp(np.linspace(0, len(p), 16), np.arange(len(p) + 1), np.append(0, np.cumsum(mean_right - order)))
    result["adaptive_ece"] = np.abs(np.diff(cuts)).sum() / len(p)
    ends = np.append(order[1:] != order[:-1], True)
    result["ks"] = np.abs(np.cumsum(mean_right - order)[ends]).max() / len(p)

    expected_wrong = _mean_of_ties(u, wrong)
    kept = np.arange(1, len(u) + 1)
    result["aurc"] = (np.cumsum(expected_wrong) / kept).mean()
    result["e_aurc"] = result["aurc"] - (np.cumsum(np.sort(wrong)) / kept).mean()
    if wrong.any():
        result["ause"] = result["e_aurc"] / wrong.mean()
    if wrong.any() and right.any():
        fpr, tpr, _ = sk.roc_curve(wrong, u, drop_intermediate=False)
        area = np.trapezoid if hasattr(np, "trapezoid") else np.trapz
        left = np.append(0, np.cumsum(expected_wrong)) / len(u)  # errors still there after rejecting the rest
        oracle, chance = np.append(0, np.cumsum(np.sort(wrong))) / len(u), wrong.mean() / 2
        share = np.linspace(0, 1, len(u) + 1)
        result |= {
            "auroc": sk.roc_auc_score(wrong, u),
            "aupr": sk.average_precision_score(wrong, u),
            "fpr95": fpr[tpr >= 0.95].min(),
            "prr": 100 * (chance - area(left, share)) / (chance - area(oracle, share)),
        }
    result |= _certainty("p_acc_cert", "p_unc_inacc", u <= np.median(u), wrong)
    own = np.concatenate([m["u"][m["seen"]] <= np.median(m["u"][m["seen"]]) for m in maps if m["seen"].any()])
    result |= _certainty("p_acc_cert_image", "p_unc_inacc_image", own, wrong)
    for nats in NATS:
        result[f"pavpu_{nats:g}"] = (wrong == (u > np.float32(nats / np.log(2)))).mean()
    result["pavpu"] = np.mean([result[f"pavpu_{nats:g}"] for nats in NATS])
    result["pavpu_patch"] = np.mean([_patch_pavpu(maps, nats / np.log(2)) for nats in NATS])
    return result


def _map(batch: Maps, index: int) -> dict[str, np.ndarray]:
    names = {"p": batch.probability, "u": batch.uncertainty, "target": batch.target, "prediction": batch.prediction}
    one = {name: values[index].numpy() for name, values in names.items()}
    for name in ("p", "u"):
        one[name] = one[name].astype(np.float32).astype(np.float64)
    seen = np.ones(one["p"].shape, bool) if batch.ignore is None else ~batch.ignore[index].numpy()
    return one | {"seen": seen}


def _calibration(confidence, right, norm):
    return float(binary_calibration_error(torch.tensor(confidence), torch.tensor(right).long(), 15, norm))


def _mean_of_ties(key, values):
    _, group, size = np.unique(key, return_inverse=True, return_counts=True)
    return (np.bincount(group, weights=values) / size)[np.sort(group)]


def _certainty(first, second, certain, wrong):
    result = {first: (~wrong)[certain].mean()}
    return result | ({second: (~certain)[wrong].mean()} if wrong.any() else {})


def _patch_pavpu(maps, tau):
    good = total = 0
    for m in maps:
        height, width = m["p"].shape
        for y in range(0, height, 4):
            for x in range(0, width, 4):
                part = (slice(y, y + 4), slice(x, x + 4))
                if seen := m["seen"][part].any():
                    seen = m["seen"][part]
                    accurate = (m["target"][part] == m["prediction"][part])[seen].mean() >= 0.5
                    good += accurate == (m["u"][part][seen].mean() <= tau)
                    total += 1
    return good / total


def assert_close(result: dict, expected: dict) -> None:
    """Every key of `result` within its tolerance of `expected`; nan where that has no value."""
    wrong = []
    for name, value in result.items():
        value, target = float(value), float(expected.get(name, 0 if name == "pixels" else np.nan))
        scale = 100 if name == "prr" else 1
        if np.isnan(value) != np.isnan(target) or abs(value - target) > scale * TOLERANCE.get(name, 1e-4):
            wrong.append(f"{name}: {value:.6f}, expected {target:.6f}")
    assert not wrong, "; ".join(wrong)
