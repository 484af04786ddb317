"""The metrics as torchmetrics classes: ``update``, ``compute``, ``forward``, ``reset``, merging and synchronising.

A thin shell: the state of a class is the int64 state of the sums it wraps, reduced over processes by addition, so that
results do not depend on batches, order or number of processes. Probabilities are expected; unlike torchmetrics' own
classes these never apply a sigmoid, and a value outside [0, 1] is an error. All are counts of binned values, hence not
differentiable. Only this file needs torchmetrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from ruac.evaluation.metrics import certainty, ranking, scores
from ruac.evaluation.metrics.bins import CONFIDENCE_BINS
from ruac.evaluation.metrics.masks import boundary_f, jaccard
from ruac.evaluation.metrics.pixels import LAYOUT, map_confidence
from ruac.evaluation.metrics.reliability import ReliabilitySums

HIGHER_IS_BETTER: dict[str, bool | None] = {
    "pixels": None,
    "accuracy": True,
    **dict.fromkeys(("ece", "mce", "adaptive_ece", "ks", "brier", "nll", "ece_foreground"), False),
    **dict.fromkeys(("auroc", "aupr", "prr", "pcc", "spearman"), True),
    **dict.fromkeys(("fpr95", "aurc", "e_aurc", "ause"), False),
    **dict.fromkeys(("mean_uncertainty", "median_uncertainty"), None),
    **dict.fromkeys(("p_acc_cert", "p_unc_inacc", "p_acc_cert_image", "p_unc_inacc_image"), True),
    **dict.fromkeys(("pavpu", "pavpu_0.01", "pavpu_0.05", "pavpu_0.1", "pavpu_patch"), True),
}
_OBJECT_BINS = 1 << 12  # of an object's confidence
_FIXED = 1 << 32  # a sum of scores in [0, 1] is kept in units of 2^-32


class _SumsMetric(Metric):
    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        for name, zeros in ReliabilitySums().to_arrays().items():
            self.add_state(name, torch.from_numpy(zeros), dist_reduce_fx="sum")

    @property
    def sums(self) -> ReliabilitySums:
        """The state as `ReliabilitySums`, for curves and bins."""
        return ReliabilitySums.from_arrays({name: getattr(self, name).cpu().numpy() for name in LAYOUT})

    def _add(self, sums: ReliabilitySums) -> None:
        for name, values in sums.to_arrays().items():
            state = getattr(self, name)
            state += torch.from_numpy(values).to(state.device)


class Reliability(_SumsMetric):
    """Every pixel metric at once, as a dict of scalars: the keys of `ReliabilitySums.compute`.

    >>> metric = Reliability()
    >>> metric.update(torch.tensor([0.9, 0.2]), torch.tensor([0.1, 0.3]), torch.tensor([True, True]))
    >>> float(metric.compute()["accuracy"])
    0.5
    """

    def update(
        self,
        probability: Tensor,
        uncertainty: Tensor,
        target: Tensor,
        prediction: Tensor | None = None,
        ignore: Tensor | None = None,
    ) -> None:
        """Add pixels or maps, see `ReliabilitySums.update`.

        prediction: bool, default probability > 0.5. ignore: bool, True where a pixel does not count.
        """
        sums = ReliabilitySums()
        sums.update(
            probability=probability,
            uncertainty=uncertainty,
            target=target,
            prediction=probability > 0.5 if prediction is None else prediction,
            region=None if ignore is None else ~ignore,
        )
        self._add(sums)

    def compute(self) -> dict[str, Tensor] | Tensor:
        return {name: torch.tensor(value) for name, value in self.sums.compute().items()}


class PixelMetric(Reliability):
    """One pixel metric by its name in `HIGHER_IS_BETTER`, e.g. ``PixelMetric("auroc")``.

    In a ``MetricCollection`` those of the same pixels share one state. Raises `ValueError` for an unknown name.
    """

    def __init__(self, name: str, **kwargs) -> None:
        if name not in HIGHER_IS_BETTER:
            raise ValueError(f"name: unknown metric {name!r}, expected one of {', '.join(HIGHER_IS_BETTER)}")
        super().__init__(**kwargs)
        self.name = name

    @property
    def higher_is_better(self) -> bool | None:
        return HIGHER_IS_BETTER[self.name]

    def compute(self) -> Tensor:
        return super().compute()[self.name]


class RSS(Reliability):
    """Reliable Segmentation Score of object masks ``[N, H, W]``: see `certainty.rss`.

    mIoU is the mean J over objects, the threshold of u the median of each map. weights: of mIoU, 1 - ECE, p(acc|cert),
    p(unc|inacc); the paper's alternative is (1, 1/3, 1/3, 1/3). Ignored pixels belong to neither mask.
    """

    higher_is_better = True

    def __init__(self, weights: tuple[float, float, float, float] = (1, 1, 1, 1), **kwargs) -> None:
        super().__init__(**kwargs)
        self.weights = weights
        _add_mean(self)

    def update(
        self,
        probability: Tensor,
        uncertainty: Tensor,
        target: Tensor,
        prediction: Tensor | None = None,
        ignore: Tensor | None = None,
    ) -> None:
        prediction = probability > 0.5 if prediction is None else prediction
        super().update(probability, uncertainty, target, prediction, ignore)
        seen = True if ignore is None else ~ignore
        _add_scores(self, jaccard(_numpy(prediction & seen), _numpy(target & seen)))

    def compute(self) -> Tensor:
        values = self.sums.compute()
        return torch.tensor(
            certainty.rss(
                miou=float(_mean(self)),
                ece=values["ece"],
                p_acc_cert=values["p_acc_cert_image"],
                p_unc_inacc=values["p_unc_inacc_image"],
                weights=self.weights,
            )
        )


class _ObjectMean(Metric):
    """Mean over objects of a score in [0, 1], from masks ``bool [N, H, W]``."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    score: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        _add_mean(self)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        _add_scores(self, type(self).score(_numpy(prediction), _numpy(target)))

    def compute(self) -> Tensor:
        return _mean(self)


class Jaccard(_ObjectMean):
    """J, see `ruac.evaluation.metrics.jaccard`."""

    score = staticmethod(jaccard)


class BoundaryF(_ObjectMean):
    """F, see `ruac.evaluation.metrics.boundary_f`."""

    score = staticmethod(boundary_f)


class ScoreQuality(_SumsMetric):
    """Predicted against true IoU of objects, a dict: see `ruac.evaluation.metrics.scores.score_quality`."""

    def update(self, predicted: Tensor, true: Tensor) -> None:
        self._add(scores.score_sums(_numpy(predicted), _numpy(true)))

    def compute(self) -> dict[str, Tensor]:
        return {name: torch.tensor(value) for name, value in scores.score_quality(self.sums).items()}


class MinMaxObjectECE(Metric):
    """The authors' object-level ECE, see `ruac.evaluation.metrics.scores.minmax_object_ece`.

    Objects are kept in 4096 equal bins of confidence; those of the 14 bins that hold an edge of the 15 may be counted
    on its other side.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        for name in ("count", "accuracy", "confidence"):
            self.add_state(name, torch.zeros(_OBJECT_BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("low", torch.tensor(math.inf), dist_reduce_fx="min")
        self.add_state("high", torch.tensor(-math.inf), dist_reduce_fx="max")

    def update(self, confidence: Tensor, accuracy: Tensor) -> None:
        """Confidence and J of objects, ``[N]`` in [0, 1]. Raises `ValueError` for a value outside."""
        for name, values in (("confidence", confidence), ("accuracy", accuracy)):
            if not ((values >= 0) & (values <= 1)).all():
                raise ValueError(f"{name}: expected values in [0, 1]")
        if not len(confidence):
            return
        index = (confidence * _OBJECT_BINS).long().clamp_(max=_OBJECT_BINS - 1)
        self.count += torch.bincount(index, minlength=_OBJECT_BINS)
        for state, values in ((self.accuracy, accuracy), (self.confidence, confidence)):
            state.index_add_(0, index, (values.double() * _FIXED).round().long())
        self.low = torch.minimum(self.low, confidence.min())
        self.high = torch.maximum(self.high, confidence.max())

    def compute(self) -> Tensor:
        count, accuracy, confidence = (_numpy(s) for s in (self.count, self.accuracy, self.confidence))
        low, high = float(self.low), float(self.high)
        return torch.tensor(scores.minmax_object_ece(count, accuracy / _FIXED, confidence / _FIXED, low=low, high=high))


class OodAUROC(Metric):
    """Images of another domain against those of the source by mean confidence, see `ranking.ood_auroc`."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        for name in ("inside", "outside"):
            self.add_state(name, torch.zeros(CONFIDENCE_BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probability: Tensor, source: bool, ignore: Tensor | None = None) -> None:
        """Maps of probability ``[N, H, W]``, all of the source domain or all of another."""
        state = self.inside if source else self.outside
        seen = {"": None if ignore is None else ~ignore}
        state += map_confidence(probability.float(), seen)["map_confidence"][""].to(state.device)

    def compute(self) -> Tensor:
        return torch.tensor(ranking.ood_auroc(_numpy(self.inside), _numpy(self.outside)))


def _add_mean(metric: Metric) -> None:
    for name in ("total", "objects"):
        metric.add_state(name, torch.tensor(0), dist_reduce_fx="sum")


def _add_scores(metric: Metric, values: np.ndarray) -> None:
    metric.total += int(np.rint(values * _FIXED).sum())
    metric.objects += len(values)


def _mean(metric: Metric) -> Tensor:
    return metric.total.double() / metric.objects.double() / _FIXED  # nan without objects


def _numpy(values: Tensor) -> np.ndarray:
    """Half precision, as models answer in, has no counterpart in numpy or too few digits for sums."""
    return (values.float() if values.is_floating_point() and values.itemsize < 4 else values).cpu().numpy()
