"""The one pass over pixels: everything that the reliability sums count, for several scores and regions at once.

A pixel is binned once, whatever the number of regions: each combination of regions a pixel can lie in has a code,
histograms are kept per code, and a region's histogram is the sum over the codes it is part of. What follows from the
probability alone is shared by all uncertainty scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.evaluation.metrics import bins
from ruac.evaluation.metrics.bins import CONFIDENCE_BINS, ECE_BIN_OF, ECE_BINS, RANK_BINS, TAUS, UNCERTAINTY_BINS

ONE = 1 << 24  # fixed point: a sum of values in [0, 1] is kept in units of 2^-24, rounded per pixel to 2^-25
NLL_RANGE = 16.0  # NLL is kept as NLL / 16: rounded per pixel to 2^-21
MIN_PROBABILITY = 2.0**-23  # of the true class, for NLL only: a saturated wrong pixel costs 15.94 nats
PATCH = 4  # side of the patches of patch PAvPU, in pixels
MOMENTS = ("u", "uu", "e", "ee", "ue", "nll")

LAYOUT = {
    "confidence": (2, CONFIDENCE_BINS),
    "confidence_sum": (CONFIDENCE_BINS,),
    "uncertainty": (2, UNCERTAINTY_BINS),
    "moments": (len(MOMENTS),),
    "ranks": (RANK_BINS, RANK_BINS),
    "at_median": (2, 2),
    "patches": (2, len(TAUS) + 1),
    "foreground": (2, ECE_BINS),
    "foreground_sum": (ECE_BINS,),
    "map_confidence": (CONFIDENCE_BINS,),
}

BLOCK = 1 << 24  # pixels
GROUP = 1 << 20  # pixels of whole maps handled together: memory does not grow with the number of objects
PATCH_ONE = 1 << 20  # fixed point within patches: the sum of 16 pixels is exact in float32
_KINDS = 4  # of a pixel's probability: true label, p > 1/2

Arrays = dict[str, np.ndarray]
Masks = Mapping[str, "Tensor | None"]
Counts = dict[str, dict[str, Tensor]]  # by part of the state, then by region


def checked(
    probability: Tensor | np.ndarray,
    uncertainty: Mapping[str, Tensor | np.ndarray],
    target: Tensor | np.ndarray,
    prediction: Tensor | np.ndarray,
    regions: Mapping[str, Tensor | np.ndarray | None],
) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor, dict[str, Tensor | None]]:
    """The arguments as tensors of one shape. Raises `ValueError` naming the first that is wrong."""
    masks = {name: mask for name, mask in regions.items() if mask is not None}
    real = {"probability": probability} | {("uncertainty", name): values for name, values in uncertainty.items()}
    logical = {"target": target, "prediction": prediction} | {("region", name): mask for name, mask in masks.items()}
    tensors = {name: torch.as_tensor(values) for name, values in (real | logical).items()}
    shape = tensors["probability"].shape
    for name, values in tensors.items():
        title = " ".join(name).strip() if isinstance(name, tuple) else name
        if values.shape != shape:
            raise ValueError(f"{title}: shape {list(values.shape)} differs from probability's {list(shape)}")
        if (name in real and not values.is_floating_point()) or (name in logical and values.dtype != torch.bool):
            raise ValueError(f"{title}: expected {'floating point' if name in real else 'bool'}, got {values.dtype}")
        if name in real:
            _check_unit(title, values)
    if tensors["probability"].device.type == "mps":  # has no double
        tensors = {name: values.cpu() for name, values in tensors.items()}
    return (
        tensors["probability"],
        {name: tensors["uncertainty", name] for name in uncertainty},
        tensors["target"],
        tensors["prediction"],
        {name: None if mask is None else tensors["region", name] for name, mask in regions.items()},
    )


def tally(
    probability: Tensor, uncertainty: Mapping[str, Tensor], target: Tensor, prediction: Tensor, regions: Masks
) -> Iterator[tuple[str, str, Arrays]]:
    """Score, region and counts to add to its sums (some of `LAYOUT`). Arguments as from `checked`.

    The last two dimensions are a map's rows and columns; with one dimension all pixels are one map without patches.
    """
    if not probability.numel():
        return
    size = probability.shape[-2:]  # one number only, where there is but one dimension
    p, truth, label = (values.reshape(-1, *size) for values in (probability, target, prediction))
    scores = {name: values.reshape(-1, *size) for name, values in uncertainty.items()}
    masks = {name: None if mask is None else mask.reshape(-1, *size) for name, mask in regions.items()}
    step = max(1, GROUP // size.numel())
    for start in range(0, len(p), step):
        group = slice(start, start + step)
        inside = {name: None if mask is None else mask[group] for name, mask in masks.items()}
        wrong = truth[group] != label[group]
        pixels = _Pixels(p[group], truth[group], wrong, inside)
        shared = _by_region(pixels.count_probability(), map_confidence(p[group].float(), inside))
        for score, values in scores.items():
            u = values[group].float().contiguous()  # torch's nanmedian is wrong for an expanded tensor
            own = _by_region(pixels.count_uncertainty(u), _at_median(u, wrong, inside), _patches(u, wrong, inside))
            for region in regions:
                yield score, region, shared[region]
                yield score, region, own[region]


class _Pixels:
    """Pixels of several maps, flattened, without those that no region counts.

    A pixel's code has a bit for each mask that it lies in.
    """

    def __init__(self, p: Tensor, truth: Tensor, wrong: Tensor, regions: Masks) -> None:
        masks = [mask for mask in regions.values() if mask is not None]
        self.where = None
        if len(masks) == len(regions):
            self.where = torch.stack(masks).any(0).reshape(-1).nonzero()[:, 0]
        self.p, self.truth, wrong = self._flat(p).float(), self._flat(truth), self._flat(wrong)
        self.regions = {name: None if mask is None else self._flat(mask) for name, mask in regions.items()}
        masks = [mask for mask in self.regions.values() if mask is not None]
        self.weights = [None if mask is None else mask.float() for mask in self.regions.values()]
        self.codes = 1 << len(masks)
        self.code = torch.zeros_like(wrong, dtype=torch.int32)
        for bit, mask in enumerate(masks):
            self.code.add_(mask, alpha=1 << bit)
        self.kind = torch.add(wrong, self.code, alpha=2)  # int32
        self.error = (self.truth.to(torch.uint8) - self.p).abs_()

    def count_probability(self) -> Counts:
        """What follows from probability and labels: by part of the state, then by region."""
        key = torch.empty_like(self.kind)
        weight = torch.empty_like(self.p, dtype=torch.float64)
        moments: list[Tensor] = []
        for block in self._blocks():
            p, e = self.p[block], self.error[block]
            c = torch.maximum(p, 1 - p)
            kind = torch.mul(self.kind[block], _KINDS).add_(self.truth[block], alpha=2).add_(p > 0.5)
            torch.add(bins.confidence_bin(c), kind, alpha=CONFIDENCE_BINS, out=key[block])
            torch.mul(c, ONE, out=weight[block])
            values = torch.empty((3, len(p)), device=p.device)
            e_fixed = torch.mul(e, ONE, out=values[0])
            torch.mul(e_fixed, e, out=values[1])
            log_likelihood = (1 - e).clamp_(min=MIN_PROBABILITY).log_()
            torch.mul(log_likelihood, -ONE / NLL_RANGE, out=values[2])
            moments.append(self._sums(values, block))

        shape = (self.codes, 2, 2, 2, CONFIDENCE_BINS)  # wrong, true label, p > 1/2
        count = _histogram(key, shape)
        # Whole numbers far below 2^53: doubles add them exactly, in whatever order.
        total = _histogram(key, shape, weight).long()
        return {
            "confidence": self._fold(count.sum((2, 3))),
            "confidence_sum": self._fold(total.sum((1, 2, 3))),
            **foreground(self._fold(count.sum(1)), self._fold(total.sum(1))),
            **self._moments(moments, ("e", "ee", "nll")),
        }

    def count_uncertainty(self, u: Tensor) -> Counts:
        """What follows from one uncertainty score: by part of the state, then by region."""
        u = self._flat(u)
        fine, ranks = torch.empty_like(self.kind), torch.empty_like(self.kind)
        moments: list[Tensor] = []
        for block in self._blocks():
            e, kind, code = self.error[block], self.kind[block], self.code[block]
            torch.add(bins.uncertainty_bin(u[block]), kind, alpha=UNCERTAINTY_BINS, out=fine[block])
            both = torch.add(bins.rank_bin(u[block]), bins.rank_bin(e), alpha=RANK_BINS)
            torch.add(both, code, alpha=RANK_BINS * RANK_BINS, out=ranks[block])
            values = torch.empty((3, len(e)), device=e.device)
            u_fixed = torch.mul(u[block], ONE, out=values[0])
            torch.mul(u_fixed, u[block], out=values[1])
            torch.mul(e * ONE, u[block], out=values[2])
            moments.append(self._sums(values, block))
        return {
            "uncertainty": self._fold(_histogram(fine, (self.codes, 2, UNCERTAINTY_BINS))),
            "ranks": self._fold(_histogram(ranks, (self.codes, RANK_BINS, RANK_BINS))),
            **self._moments(moments, ("u", "uu", "ue")),
        }

    def _flat(self, values: Tensor) -> Tensor:
        return values.reshape(-1) if self.where is None else values.reshape(-1)[self.where]

    def _blocks(self) -> Iterator[slice]:
        return (slice(start, start + BLOCK) for start in range(0, len(self.p), BLOCK))

    def _fold(self, table: Tensor) -> dict[str, Tensor]:
        """``[codes, ...]``, counts for each code, as counts for each region."""
        folded, bit = {}, 1
        for name, mask in self.regions.items():
            codes = [code for code in range(self.codes) if mask is None or code & bit]
            folded[name] = table[codes].sum(0)
            bit <<= mask is not None
        return folded

    def _sums(self, values: Tensor, block: slice) -> Tensor:
        """``[V, n]`` rounded to whole numbers and added up, exactly, for each region: ``[regions, V]``."""
        values.round_()
        inside = (values if weight is None else values * weight[block] for weight in self.weights)
        return torch.stack([v.sum(1, dtype=torch.float64) for v in inside])

    def _moments(self, blocks: list[Tensor], names: tuple[str, ...]) -> Counts:
        columns = [MOMENTS.index(name) for name in names]
        total = torch.zeros((len(self.regions), len(MOMENTS)), dtype=torch.float64, device=self.p.device)
        total[:, columns] = torch.stack(blocks).sum(0) if blocks else 0
        return {"moments": dict(zip(self.regions, total, strict=True))}


def _histogram(index: Tensor, shape: tuple[int, ...], weight: Tensor | None = None) -> Tensor:
    return torch.bincount(index, weights=weight, minlength=math.prod(shape)).view(shape)


def foreground(count: dict[str, Tensor], total: dict[str, Tensor]) -> Counts:
    """15 bins of p from confidence bins ``[true label, p > 1/2, bins]``: below 1/2 they are mirrored."""
    found: Counts = {"foreground": {}, "foreground_sum": {}}
    for region in count:
        places = torch.from_numpy(ECE_BIN_OF).to(count[region].device)
        pixels, mass = (x.new_zeros((2, 2, ECE_BINS)).index_add_(2, places, x) for x in (count[region], total[region]))
        found["foreground"][region] = pixels[:, 1] + pixels[:, 0].flip(1)
        found["foreground_sum"][region] = (mass[:, 1] + (ONE * pixels - mass)[:, 0].flip(1)).sum(0)
    return found


def map_confidence(p: Tensor, regions: Masks) -> Counts:
    """Histogram over maps of the mean confidence."""
    c, found = torch.maximum(p, 1 - p).flatten(1), {}  # multiples of 2^-24: their sum is exact
    for region, mask in regions.items():
        within = c if mask is None else c * mask.flatten(1)
        count = torch.full_like(c[:, 0], c.shape[1]) if mask is None else mask.flatten(1).sum(1)
        mean = (within.sum(1, dtype=torch.float64) / count)[count > 0].float()
        found[region] = torch.bincount(bins.confidence_bin(mean), minlength=CONFIDENCE_BINS)
    return {"map_confidence": found}


def _at_median(u: Tensor, wrong: Tensor, regions: Masks) -> Counts:
    """Correct and wrong x certain and uncertain; uncertain is above the median u of the pixel's own map. Exact.

    The lower median splits pixels just as the mean of the two middle values would.
    """
    found = {}
    for region, mask in regions.items():
        median = (u if mask is None else torch.where(mask, u, math.nan)).flatten(1).nanmedian(1).values
        certain = u.flatten(1) <= median[:, None]  # never in a map without pixels, whose median is nan
        miss, inside = wrong.flatten(1), None if mask is None else mask.flatten(1)
        if inside is not None:
            certain, miss = certain & inside, miss & inside
        total = u.numel() if inside is None else torch.count_nonzero(inside)
        n_certain, n_wrong, n_both = (torch.count_nonzero(x) for x in (certain, miss, certain & miss))
        found[region] = torch.stack(
            [n_certain - n_both, total - n_certain - n_wrong + n_both, n_both, n_wrong - n_both]
        ).view(2, 2)
    return {"at_median": found}


def _patches(u: Tensor, wrong: Tensor, regions: Masks) -> Counts:
    """Patches that are accurate (at least half of the pixels) or not, by the number of taus their mean u exceeds.

    A patch is what lies of it inside the image and the region; without any pixel it is not counted.
    """
    shape = LAYOUT["patches"]
    found = {region: torch.zeros(shape, dtype=torch.int64, device=u.device) for region in regions}
    if u.ndim < 3:
        return {"patches": found}
    u_fixed, correct = (u * PATCH_ONE).round_(), (~wrong).float()
    for region, mask in regions.items():
        held = torch.ones_like(u[:1]) if mask is None else mask.float()
        inside = (correct, u_fixed) if mask is None else (correct * held, u_fixed * held)
        count, right, doubt = (_patch_sums(x) for x in (held, *inside))
        level = sum((doubt > tau * PATCH_ONE * count).long() for tau in TAUS)
        level += shape[1] * (2 * right < count)
        found[region] = _histogram(level[(count > 0).expand_as(level)], shape)
    return {"patches": found}


def _patch_sums(values: Tensor) -> Tensor:
    """``[N, H, W]`` to the sums of its patches, those at the lower and right edge cut off by it."""
    height, width = values.shape[1:]
    if height % PATCH or width % PATCH:
        values = F.pad(values, (0, -width % PATCH, 0, -height % PATCH))
    rows = values.unflatten(1, (-1, PATCH)).sum(2)  # [N, H/4, W]
    return rows.unflatten(2, (-1, PATCH)).sum(3)  # [N, H/4, W/4]


def _by_region(*counts: Counts) -> dict[str, Arrays]:
    """From part and region to region and part, as int64 arrays."""
    parts = {part: by_region for group in counts for part, by_region in group.items()}
    return {
        region: {part: by_region[region].cpu().numpy().astype(np.int64) for part, by_region in parts.items()}
        for region in parts["moments"]
    }


def _check_unit(name: str, values: Tensor) -> None:
    if not values.numel():
        return
    for axis in (axis for axis, step in enumerate(values.stride()) if step == 0):
        values = values.narrow(axis, 0, 1)  # of an expanded tensor, what it repeats
    low, high = (float(v) for v in values.aminmax())  # NaN propagates
    if math.isnan(low) or math.isnan(high):
        raise ValueError(f"{name}: contains NaN")
    if low < 0 or high > 1:
        raise ValueError(f"{name}: expected values in [0, 1], got {low:g} to {high:g}")
