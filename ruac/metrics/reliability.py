"""Constant-memory sums from which every pixel reliability metric is computed.

All state is int64: adding sums over images, chunks and processes is exact and has no order. Real values are rounded
per pixel to multiples of 2^-24, so the way pixels are split into updates does not matter either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ruac.errors import RuacError
from ruac.metrics import curves

ECE_BINS = 15
PAVPU_NATS = (0.01, 0.05, 0.1)
TAUS = tuple(tau / math.log(2) for tau in PAVPU_NATS)  # u is entropy / ln 2

ONE = 1 << 24  # fixed point: a sum of values in [0, 1] is kept in units of 2^-24, rounded per pixel to 2^-25
NLL_RANGE = 16.0  # NLL is kept as NLL / 16: rounded per pixel to 2^-21
MIN_PROBABILITY = 2.0**-23  # of the true class, for NLL only: a saturated wrong pixel costs 15.94 nats
MAX_PIXELS = 1 << 38  # far from where an int64 sum could overflow

# Bins are equal in (2 min(x, 1 - x))^(1/4) on either side of 1/2: u and confidence pile up at their ends.
UNCERTAINTY_HALF = 1 << 15  # bins in each half of [0, 1]
CONFIDENCE_HALF = 1 << 13  # bins in [1/2, 1]
_FIRST_ECE_BIN = ECE_BINS // 2  # the one that holds confidence 1/2, the smallest there is
_CPU_BLOCK, _CUDA_BLOCK = 1 << 17, 1 << 24  # pixels; a CPU block stays in cache, a CUDA block bounds memory

# Cutting the bins further at the taus and at the ECE bins makes counts at those edges exact.
_TAILS = (np.arange(UNCERTAINTY_HALF + 1) / UNCERTAINTY_HALF) ** 4 / 2
UNCERTAINTY_EDGES = np.sort(np.concatenate([_TAILS, 1 - _TAILS[:-1], TAUS]))
_ECE_EDGES = np.arange(_FIRST_ECE_BIN + 1, ECE_BINS) / ECE_BINS
CONFIDENCE_EDGES = np.sort(
    np.concatenate([1 - (np.arange(CONFIDENCE_HALF + 1) / CONFIDENCE_HALF) ** 4 / 2, _ECE_EDGES])
)
_MOMENTS = ("u", "uu", "e", "ee", "ue", "nll")


class ReliabilitySums:
    """Sums over the pixels of one (model, domain, region, uncertainty score).

    Per pixel: p in [0, 1], the foreground probability; u in [0, 1], the uncertainty (total uncertainty is entropy in
    nats / ln 2); the true label; the predicted label (logit > 0, given by the caller). A pixel is correct if the two
    labels agree; confidence is max(p, 1 - p); e = |p - label|.

    State, about 1.2 MB, all int64: ``confidence [2, C]`` and ``uncertainty [2, U]``, fine histograms of correct (row
    0) and wrong (row 1) pixels; ``confidence_sum [C]``, the confidence in each fine bin; ``moments [6]``, sums of u,
    u^2, e, e^2, u e, NLL / 16.

    Errors of the state: confidence sums are exact; a mean of u, e, their squares and product is within 2^-24, mean NLL
    within 2^-20, for p clipped to [2^-23, 1 - 2^-23]. Counts in the 15 ECE bins and at the PAvPU thresholds are exact.
    """

    def __init__(self) -> None:
        self.confidence = np.zeros((2, len(CONFIDENCE_EDGES) - 1), dtype=np.int64)
        self.confidence_sum = np.zeros(len(CONFIDENCE_EDGES) - 1, dtype=np.int64)
        self.uncertainty = np.zeros((2, len(UNCERTAINTY_EDGES) - 1), dtype=np.int64)
        self.moments = np.zeros(len(_MOMENTS), dtype=np.int64)

    @property
    def count(self) -> int:
        """Number of pixels."""
        return int(self.uncertainty.sum())

    @torch.no_grad()
    def update(
        self,
        *,
        probability: Tensor | np.ndarray,
        uncertainty: Tensor | np.ndarray,
        target: Tensor | np.ndarray,
        prediction: Tensor | np.ndarray,
        region: Tensor | np.ndarray | None = None,
    ) -> None:
        """Add pixels: any shape, e.g. ``[P]`` or all objects of an image at once, ``[N, H, W]``.

        probability, uncertainty: floating point (taken as float32). target, prediction: bool. region: bool, True where
        a pixel counts; None for all. All of one shape, on one device; CUDA tensors are summed where they are. No pixel
        at all is fine. Raises `ValueError` naming the argument for a wrong shape or dtype, NaN, or a value outside
        [0, 1]; nothing is added then.
        """
        given = {"probability": probability, "uncertainty": uncertainty, "target": target, "prediction": prediction}
        p, u, truth, label = _flatten(given, region)
        for name, values in (("probability", p), ("uncertainty", u)):
            _check_unit(name, values)
        if self.count + p.numel() > MAX_PIXELS:
            raise ValueError(f"more than {MAX_PIXELS} pixels in one ReliabilitySums")

        u_bin = torch.empty(p.shape, dtype=torch.int32, device=p.device)
        moments = torch.zeros(len(_MOMENTS), dtype=torch.float64, device=p.device)
        confidence = torch.zeros(self.confidence.size, dtype=torch.int64, device=p.device)
        confidence_sum = torch.zeros(self.confidence.size, dtype=torch.float64, device=p.device)
        for block in _blocks(p):
            wrong = (truth[block] != label[block]).to(torch.int32)
            torch.add(_uncertainty_bin(u[block]), wrong, alpha=self.uncertainty.shape[1], out=u_bin[block])
            c = torch.maximum(p[block], 1 - p[block])
            c_bin = _confidence_bin(c).add_(wrong, alpha=self.confidence.shape[1])
            confidence += torch.bincount(c_bin, minlength=len(confidence))
            # Whole numbers far below 2^53: doubles add them exactly, in whatever order.
            confidence_sum += torch.bincount(c_bin, weights=c.double().mul_(ONE), minlength=len(confidence))
            moments += _moments(p[block], u[block], truth[block])

        self.uncertainty += _array(torch.bincount(u_bin, minlength=self.uncertainty.size)).reshape(2, -1)
        self.confidence += _array(confidence).reshape(2, -1)
        self.confidence_sum += _array(confidence_sum).reshape(2, -1).sum(0)
        self.moments += _array(moments)

    def merge(self, other: ReliabilitySums) -> None:
        """Add the pixels of `other`. Raises `ValueError` beyond 2^38 pixels."""
        if self.count + other.count > MAX_PIXELS:
            raise ValueError(f"more than {MAX_PIXELS} pixels in one ReliabilitySums")
        for name, values in other.to_arrays().items():
            getattr(self, name).__iadd__(values)

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

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state by name, for ``np.savez_compressed``."""
        return {name: getattr(self, name) for name in ("confidence", "confidence_sum", "uncertainty", "moments")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ReliabilitySums:
        """Copy a saved state. Raises `RuacError` for a missing key, another dtype or another bin layout."""
        sums = cls()
        for name, empty in sums.to_arrays().items():
            if name not in arrays:
                raise RuacError(f"reliability sums: key '{name}' is missing")
            values = np.asarray(arrays[name])
            if values.shape != empty.shape or values.dtype != np.int64:
                raise RuacError(
                    f"reliability sums: key '{name}' is {values.dtype} {list(values.shape)}, "
                    f"expected int64 {list(empty.shape)}"
                )
            setattr(sums, name, values.copy())
        return sums

    def confidence_bins(self, *, fine: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count, correct pixels and confidence sum of the 15 equal-width bins ``(k/15, (k+1)/15]``, or of the fine."""
        bins = (self.confidence.sum(0), self.confidence[0], self.confidence_sum / ONE)
        if fine:
            return bins
        centre = (CONFIDENCE_EDGES[1:] + CONFIDENCE_EDGES[:-1]) / 2
        coarse = np.ceil(centre * ECE_BINS).astype(np.int64) - 1
        count, correct, total = (np.bincount(coarse, weights=v, minlength=ECE_BINS) for v in (*bins[:2], bins[2]))
        return count.astype(np.int64), correct.astype(np.int64), total

    def quadrants(self, threshold: float | np.ndarray) -> curves.Quadrants:
        """Certain/uncertain x accurate/inaccurate counts, uncertain meaning u > threshold (nearest bin edge)."""
        return curves.quadrants(*self.uncertainty, UNCERTAINTY_EDGES, threshold)

    def compute(self, threshold: float | None = None) -> dict[str, float]:
        """Every scalar metric; nan where it has no value (no pixel, or only one of correct and wrong).

        threshold: of u, for p(acc|cert) and p(unc|inacc). None: the median u of the pixels summed here, that is of
        the domain (upper edge of the histogram bin it lies in), not of each image. ``pavpu`` is the mean over tau =
        0.01, 0.05, 0.1 nats.
        """
        correct, wrong = self.uncertainty
        u, uu, e, ee, ue, nll = (int(v) for v in self.moments)
        n = self.count
        median = curves.median_edge(correct, wrong, UNCERTAINTY_EDGES)
        at_threshold = self.quadrants(median if threshold is None else threshold)
        at_taus = curves.pavpu(self.quadrants(np.array(TAUS)))
        coarse, fine = self.confidence_bins(), self.confidence_bins(fine=True)
        return {
            "pixels": float(n),
            "accuracy": curves.accuracy(correct, wrong),
            "ece": curves.ece(*coarse),
            "mce": curves.mce(*coarse),
            "adaptive_ece": curves.adaptive_ece(*fine),
            "ks": curves.ks(*fine),
            "brier": ee / (n * ONE) if n else curves.NAN,
            "nll": NLL_RANGE * nll / (n * ONE) if n else curves.NAN,
            "auroc": curves.auroc(correct, wrong),
            "aupr": curves.aupr(correct, wrong),
            "fpr95": curves.fpr_at_tpr(correct, wrong),
            "aurc": curves.aurc(correct, wrong),
            "e_aurc": curves.e_aurc(correct, wrong),
            "ause": curves.ause(correct, wrong),
            "prr": curves.prr(correct, wrong),
            "pcc": curves.pearson(n, u, e, uu, ee, ue, scale=ONE),
            "mean_uncertainty": u / (n * ONE) if n else curves.NAN,
            "median_uncertainty": median,
            "p_acc_cert": float(curves.p_acc_cert(at_threshold)),
            "p_unc_inacc": float(curves.p_unc_inacc(at_threshold)),
            "pavpu": float(at_taus.mean()),
            **{f"pavpu_{tau:g}": float(value) for tau, value in zip(PAVPU_NATS, at_taus, strict=True)},
        }


def _flatten(given: dict[str, Tensor | np.ndarray], region: Tensor | np.ndarray | None) -> list[Tensor]:
    if region is not None:
        given = {**given, "region": region}
    tensors = {name: torch.as_tensor(values) for name, values in given.items()}
    shape = tensors["probability"].shape
    for name, values in tensors.items():
        if values.shape != shape:
            raise ValueError(f"{name}: shape {list(values.shape)} differs from probability's {list(shape)}")
        floating = name in ("probability", "uncertainty")
        if (floating and not values.is_floating_point()) or (not floating and values.dtype != torch.bool):
            raise ValueError(f"{name}: expected {'floating point' if floating else 'bool'}, got {values.dtype}")
    if tensors["probability"].device.type == "mps":  # has no double
        tensors = {name: values.cpu() for name, values in tensors.items()}
    where = tensors.pop("region", None)
    flat = [values.reshape(-1) if where is None else values[where] for values in tensors.values()]
    return [values.float() if values.is_floating_point() else values for values in flat]


def _check_unit(name: str, values: Tensor) -> None:
    if not values.numel():
        return
    low, high = (float(v) for v in values.aminmax())  # NaN propagates
    if math.isnan(low) or math.isnan(high):
        raise ValueError(f"{name}: contains NaN")
    if low < 0 or high > 1:
        raise ValueError(f"{name}: expected values in [0, 1], got {low:g} to {high:g}")


def _blocks(values: Tensor) -> Iterator[slice]:
    size = _CUDA_BLOCK if values.is_cuda else _CPU_BLOCK
    return (slice(start, start + size) for start in range(0, values.numel(), size))


def _position(tail: Tensor, bins: int) -> Tensor:
    """Bin of a tail in [0, 1/2], counted from the end 0: whole numbers in ``[0, bins - 1]``, as float."""
    return (tail * 2).sqrt_().sqrt_().mul_(bins).floor_().clamp_(max=bins - 1)


def _uncertainty_bin(u: Tensor) -> Tensor:
    """Index into `UNCERTAINTY_EDGES`. All in float: torch.where would take longer than the rest together."""
    from_centre = (UNCERTAINTY_HALF - 0.5) - _position(torch.minimum(u, 1 - u), UNCERTAINTY_HALF)
    index = torch.copysign(from_centre, u - 0.5).add_(UNCERTAINTY_HALF - 0.5)
    for tau in TAUS:
        index += (u - tau).ceil_()  # 1 above tau, else 0
    return index.to(torch.int32)


def _confidence_bin(c: Tensor) -> Tensor:
    """Index into `CONFIDENCE_EDGES`."""
    ece_bin = (c * ECE_BINS).ceil_().sub_(1 + _FIRST_ECE_BIN)
    return ece_bin.add_(CONFIDENCE_HALF - 1).sub_(_position(1 - c, CONFIDENCE_HALF)).to(torch.int32)


def _moments(p: Tensor, u: Tensor, truth: Tensor) -> Tensor:
    e = (truth.to(torch.uint8) - p).abs_()
    values = torch.empty((len(_MOMENTS), len(p)), device=p.device)
    u_fixed = torch.mul(u, ONE, out=values[0])
    torch.mul(u_fixed, u, out=values[1])
    e_fixed = torch.mul(e, ONE, out=values[2])
    torch.mul(e_fixed, e, out=values[3])
    torch.mul(e_fixed, u, out=values[4])
    log_likelihood = (1 - e).clamp_(min=MIN_PROBABILITY).log_()
    torch.mul(log_likelihood, -ONE / NLL_RANGE, out=values[5])
    return values.round_().sum(1, dtype=torch.float64)


def _array(sums: Tensor) -> np.ndarray:
    return sums.cpu().numpy().astype(np.int64)
