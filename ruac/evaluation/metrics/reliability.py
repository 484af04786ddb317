"""Constant-memory sums from which every pixel reliability metric is computed.

All state is int64: adding sums over images, chunks and processes is exact and has no order. Real values are rounded
per pixel to multiples of 2^-24, so the way pixels are split into updates does not matter either.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ruac.base.errors import RuacError
from ruac.evaluation.metrics import bins, calibration, certainty, correlation, ranking
from ruac.evaluation.metrics.bins import ECE_BIN_OF, ECE_BINS, PAVPU_NATS, TAUS, UNCERTAINTY_EDGES
from ruac.evaluation.metrics.pixels import LAYOUT, NLL_RANGE, ONE, Arrays, checked, tally

MAX_PIXELS = 1 << 38  # far from where an int64 sum could overflow
COMPILED = ("cpu",)  # types of devices whose pixels go through `compiled` instead of `pixels`
_FIRST_VERSION = ("confidence", "confidence_sum", "uncertainty", "moments")  # what every saved state has


def update_sums(
    sums: Mapping[tuple[str, str], ReliabilitySums],
    *,
    probability: Tensor | np.ndarray,
    uncertainty: Mapping[str, Tensor | np.ndarray],
    target: Tensor | np.ndarray,
    prediction: Tensor | np.ndarray,
    regions: Mapping[str, Tensor | np.ndarray | None],
) -> None:
    """Add the same pixels to ``sums[score, region]`` of every score in `uncertainty` and every region, in one pass.

    The result is that of calling `ReliabilitySums.update` for each pair, and what does not depend on the score is
    computed once. probability, target, prediction: as there. uncertainty: by score. regions: by name, a mask or None
    for all pixels. Raises `ValueError` as there; nothing is added then.
    """
    p, scores, truth, label, masks = checked(probability, uncertainty, target, prediction, regions)
    for pair in ((score, region) for score in scores for region in masks):
        if sums[pair].count + p.numel() > MAX_PIXELS:
            raise ValueError(f"more than {MAX_PIXELS} pixels in one ReliabilitySums")
    if p.device.type in COMPILED:
        from ruac.evaluation.metrics import compiled  # here, since it takes a second and a GPU has no use for it

        arrays = {(score, region): sums[score, region].to_arrays() for score in scores for region in masks}
        compiled.add(arrays, p, scores, truth, label, masks)
        return
    with torch.no_grad():
        for score, region, counts in tally(p, scores, truth, label, masks):
            sums[score, region].add_counts(counts)


class ReliabilitySums:
    """Sums over the pixels of one (model, domain, region, uncertainty score).

    Per pixel: p in [0, 1], the foreground probability; u in [0, 1], the uncertainty (total uncertainty is entropy in
    nats / ln 2); the true label; the predicted label (logit > 0, given by the caller). A pixel is correct if the two
    labels agree; confidence is max(p, 1 - p); e = |p - label|. A map is one image answered for one object.

    State, about 3.3 MB, all int64. Fine histograms of correct (row 0) and wrong (row 1) pixels: ``confidence [2, C]``
    and ``uncertainty [2, U]``. ``confidence_sum [C]``: the confidence in each fine bin. ``moments [6]``: sums of u,
    u^2, e, e^2, u e, NLL / 16. ``ranks [R, R]``: pixels by rank bin of u and e. ``at_median [2, 2]``: correct or wrong
    x certain or uncertain, at the median u of each map. ``patches [2, 4]``: accurate or inaccurate patches by the
    number of taus that their mean u exceeds. ``foreground [2, 15]`` and ``foreground_sum [15]``: background (row 0)
    and object pixels, and the sum of p, in 15 bins of p. ``map_confidence [C]``: maps by their mean confidence.

    Errors of the state: confidence sums are exact; a mean of u, e, their squares and product is within 2^-24, mean NLL
    within 2^-20, for p clipped to [2^-23, 1 - 2^-23]. Counts in the 15 ECE bins, at the PAvPU thresholds and at the
    medians are exact. docs/metrics.md gives the bound of every metric.
    """

    def __init__(self) -> None:
        for name, shape in LAYOUT.items():
            setattr(self, name, np.zeros(shape, dtype=np.int64))

    @property
    def count(self) -> int:
        """Number of pixels."""
        return int(self.uncertainty.sum())

    def update(
        self,
        *,
        probability: Tensor | np.ndarray,
        uncertainty: Tensor | np.ndarray,
        target: Tensor | np.ndarray,
        prediction: Tensor | np.ndarray,
        region: Tensor | np.ndarray | None = None,
    ) -> None:
        """Add pixels: maps ``[H, W]`` or ``[N, H, W]``, or ``[P]`` pixels of one map whose place is not known.

        probability, uncertainty: floating point (taken as float32). target, prediction: bool. region: bool, True where
        a pixel counts; None for all. All of one shape, on one device; CUDA tensors are summed where they are. No pixel
        at all is fine. Raises `ValueError` naming the argument for a wrong shape or dtype, NaN, or a value outside
        [0, 1]; nothing is added then.
        """
        update_sums(
            {("", ""): self},
            probability=probability,
            uncertainty={"": uncertainty},
            target=target,
            prediction=prediction,
            regions={"": region},
        )

    def add_counts(self, counts: Arrays) -> None:
        """Add arrays of the state, some or all of them."""
        for name, values in counts.items():
            getattr(self, name).__iadd__(values)

    def merge(self, other: ReliabilitySums) -> None:
        """Add the pixels of `other`. Raises `ValueError` beyond 2^38 pixels."""
        if self.count + other.count > MAX_PIXELS:
            raise ValueError(f"more than {MAX_PIXELS} pixels in one ReliabilitySums")
        self.add_counts(other.to_arrays())

    def __add__(self, other: ReliabilitySums) -> ReliabilitySums:
        total = ReliabilitySums.from_arrays(self.to_arrays())
        total.merge(other)
        return total

    def all_reduce(self, device: torch.device | str = "cpu") -> None:
        """Replace the sums by those over all processes of the default group; `device` as its backend needs it."""
        arrays = self.to_arrays()
        flat = torch.from_numpy(np.concatenate([a.reshape(-1) for a in arrays.values()])).to(device)
        torch.distributed.all_reduce(flat)
        pieces = np.split(flat.cpu().numpy(), np.cumsum([a.size for a in arrays.values()])[:-1])
        for (name, values), piece in zip(arrays.items(), pieces, strict=True):
            setattr(self, name, piece.reshape(values.shape))

    def to_arrays(self) -> Arrays:
        """The state by name, for `base.arrays.save_arrays`."""
        return {name: getattr(self, name) for name in LAYOUT}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ReliabilitySums:
        """Copy a saved state. Raises `RuacError` for a missing key, another dtype or another bin layout.

        A state saved before the keys after ``moments`` existed can be read: what needs them is then nan.
        """
        sums = cls()
        for name, empty in sums.to_arrays().items():
            if name not in arrays:
                if name not in _FIRST_VERSION:
                    continue
                raise RuacError(f"reliability sums: key '{name}' is missing")
            values = np.asarray(arrays[name])
            if values.shape != empty.shape or not np.can_cast(values.dtype, np.int64):
                raise RuacError(
                    f"reliability sums: key '{name}' is {values.dtype} {list(values.shape)}, "
                    f"expected int64 {list(empty.shape)}, or integers that it holds"
                )
            setattr(sums, name, values.astype(np.int64))
        return sums

    def confidence_bins(self, *, fine: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count, correct pixels and confidence sum of the 15 equal-width bins ``(k/15, (k+1)/15]``, or of the fine."""
        bins = (self.confidence.sum(0), self.confidence[0], self.confidence_sum / ONE)
        if fine:
            return bins
        count, correct, total = (np.bincount(ECE_BIN_OF, weights=v, minlength=ECE_BINS) for v in bins)
        return count.astype(np.int64), correct.astype(np.int64), total

    def quadrants(self, threshold: float | np.ndarray) -> certainty.Quadrants:
        """Certain/uncertain x accurate/inaccurate counts, uncertain meaning u > threshold (nearest bin edge)."""
        return certainty.quadrants(*self.uncertainty, UNCERTAINTY_EDGES, threshold)

    def compute(self, threshold: float | None = None) -> dict[str, float]:
        """Every scalar metric; nan where it has no value (no pixel, or only one of correct and wrong).

        threshold: of u, for p(acc|cert) and p(unc|inacc). None: the median u of the pixels summed here, that is of
        the domain (upper edge of the histogram bin it lies in). ``p_acc_cert_image`` and ``p_unc_inacc_image`` have
        the median of each map instead, as RSS does. ``pavpu`` and ``pavpu_patch`` are means over tau = 0.01, 0.05,
        0.1 nats. Every key is defined in docs/metrics.md.
        """
        correct, wrong = self.uncertainty
        u, uu, e, ee, ue, nll = (int(v) for v in self.moments)
        n = self.count
        median = certainty.median_edge(correct, wrong, UNCERTAINTY_EDGES)
        counts = self.quadrants(np.array([median if threshold is None else threshold, *TAUS]))  # together: one pass
        at_threshold = certainty.Quadrants(*(part[0] for part in counts))
        at_taus = certainty.pavpu(certainty.Quadrants(*(part[1:] for part in counts)))
        patches = certainty.pavpu(certainty.quadrants(*self.patches, np.array([0, *TAUS, 1]), np.array(TAUS)))
        medians = certainty.Quadrants(*self.at_median.reshape(-1))
        if self.at_median.sum() != n:  # pixels of a state saved before these were counted
            patches, medians = np.full(len(TAUS), bins.NAN), certainty.Quadrants(0, 0, 0, 0)
        coarse, fine = self.confidence_bins(), self.confidence_bins(fine=True)
        foreground = self.foreground.sum(0), self.foreground[1], self.foreground_sum / ONE
        area = ranking.aurc(correct, wrong)
        return {
            "pixels": float(n),
            "accuracy": ranking.accuracy(correct, wrong),
            "ece": calibration.ece(*coarse),
            "mce": calibration.mce(*coarse),
            "adaptive_ece": calibration.adaptive_ece(*fine),
            "ks": calibration.ks(*fine),
            "brier": ee / (n * ONE) if n else bins.NAN,
            "nll": NLL_RANGE * nll / (n * ONE) if n else bins.NAN,
            "auroc": ranking.auroc(correct, wrong),
            "aupr": ranking.aupr(correct, wrong),
            "fpr95": ranking.fpr_at_tpr(correct, wrong),
            "aurc": area,
            "e_aurc": ranking.e_aurc(correct, wrong, area),
            "ause": ranking.ause(correct, wrong, area),
            "prr": ranking.prr(correct, wrong),
            "pcc": correlation.pearson(n, u, e, uu, ee, ue, scale=ONE),
            "spearman": correlation.spearman(self.ranks) if self.ranks.sum() == n else bins.NAN,
            "ece_foreground": calibration.ece(*foreground) if self.foreground.sum() == n else bins.NAN,
            "mean_uncertainty": u / (n * ONE) if n else bins.NAN,
            "median_uncertainty": median,
            "p_acc_cert": float(certainty.p_acc_cert(at_threshold)),
            "p_unc_inacc": float(certainty.p_unc_inacc(at_threshold)),
            "p_acc_cert_image": float(certainty.p_acc_cert(medians)),
            "p_unc_inacc_image": float(certainty.p_unc_inacc(medians)),
            "pavpu_patch": float(patches.mean()),
            "pavpu": float(at_taus.mean()),
            **{f"pavpu_{tau:g}": float(value) for tau, value in zip(PAVPU_NATS, at_taus, strict=True)},
        }
