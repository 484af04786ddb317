"""The pass over pixels of `pixels.tally`, compiled for the CPU: the same counts, several times as fast.

A tile of pixels goes through loops of plain arithmetic, which become vector instructions, and then through one that
counts. The arithmetic is that of `bins`, operation by operation in float32, so that a pixel falls into the same bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ruac.base.compiled import compiled
from ruac.evaluation.metrics import bins
from ruac.evaluation.metrics.bins import (
    CONFIDENCE_BINS,
    CONFIDENCE_HALF,
    RANK_BINS,
    RANK_HALF,
    UNCERTAINTY_BINS,
    UNCERTAINTY_HALF,
)
from ruac.evaluation.metrics.pixels import (
    LAYOUT,
    MIN_PROBABILITY,
    NLL_RANGE,
    ONE,
    PATCH,
    PATCH_ONE,
    Arrays,
    Masks,
    foreground,
)

_TILE = 1024  # pixels: the buffers stay in the first-level cache

# Numba takes a Python number for 64 bits wide, and one of them makes all arithmetic around it so.
_F, _I = np.float32, np.int32
_HALF, _1, _2, _ONE, _PATCH_ONE = _F(0.5), _F(1), _F(2), _F(ONE), _F(PATCH_ONE)
_NLL_ONE, _LEAST, _LN2 = _F(ONE / NLL_RANGE), _F(MIN_PROBABILITY), _F(np.log(2))
_ECE, _C_HALF, _U_HALF = _F(bins.ECE_BINS), _F(CONFIDENCE_HALF), _F(UNCERTAINTY_HALF)
_C_FIRST, _C_LAST = _I(CONFIDENCE_HALF - 2 - bins.ECE_BINS // 2), _I(CONFIDENCE_HALF - 1)
_U_LAST, _U_TOP = _I(UNCERTAINTY_HALF - 1), _I(2 * UNCERTAINTY_HALF - 1)
_R_SHIFT, _R_LOWEST, _R_LAST, _R_TOP = _I(bins.SHIFT), _I(bins.LOWEST), _I(RANK_HALF - 1), _I(RANK_BINS - 1)
_TAU_0, _TAU_1, _TAU_2 = (_F(tau) for tau in bins.TAUS)
_DOUBT_0, _DOUBT_1, _DOUBT_2 = (_F(tau * PATCH_ONE) for tau in bins.TAUS)
_SQRT_HALF = _I(np.float32(0.5**0.5).view(np.int32))


def add(
    sums: Mapping[tuple[str, str], Arrays],
    probability: Tensor,
    uncertainty: Mapping[str, Tensor],
    target: Tensor,
    prediction: Tensor,
    regions: Masks,
) -> None:
    """Add to the arrays ``sums[score, region]`` what `pixels.tally` would count; tensors on the CPU."""
    if not probability.numel():
        return
    size = probability.shape[-2:] if probability.ndim > 1 else (1, len(probability))
    p, truth, label = (_maps(values, size) for values in (probability, target, prediction))
    scores = {name: _values(u) if _is_one_per_map(u) else _maps(u, size) for name, u in uncertainty.items()}
    masks = {name: None if mask is None else _maps(mask, size) for name, mask in regions.items()}
    threads = min(torch.get_num_threads(), len(p))

    def work(arrays: Mapping[tuple[str, str], Arrays], part: slice) -> None:
        own = {name: u[part] for name, u in scores.items()}
        inside = {name: None if mask is None else mask[part] for name, mask in masks.items()}
        _add(arrays, p[part], own, truth[part], truth[part] != label[part], inside, patches=probability.ndim > 1)

    if threads == 1:
        return work(sums, slice(None))
    copies = [{pair: {k: np.zeros_like(v) for k, v in sums[pair].items()} for pair in sums} for _ in range(threads)]
    cuts = np.linspace(0, len(p), threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:  # the compiled loops hold no lock
        list(pool.map(work, copies, map(slice, cuts, cuts[1:])))
    for pair, arrays in sums.items():
        for name, values in arrays.items():
            values += sum(copy[pair][name] for copy in copies)


def _is_one_per_map(values: Tensor) -> bool:
    """Whether they are an expanded tensor, such as the stand-in of vanilla SAM 2, with one value for each map."""
    return values.ndim > 2 and values.stride()[-2:] == (0, 0)


def _values(values: Tensor) -> np.ndarray:
    return values.detach()[..., 0, 0].reshape(-1).float().numpy()


def _maps(values: Tensor, size: tuple[int, int]) -> np.ndarray:
    values = values.detach().reshape(-1, *size)
    return (values.float() if values.is_floating_point() else values).contiguous().numpy()


def _add(
    sums: Mapping[tuple[str, str], Arrays],
    p: np.ndarray,
    scores: Mapping[str, np.ndarray],
    truth: np.ndarray,
    wrong: np.ndarray,
    regions: Mapping[str, np.ndarray | None],
    *,
    patches: bool,
) -> None:
    """One thread's maps ``[N, H, W]``, or ``[N]`` where a score has one value for each map."""
    everywhere = np.ones_like(wrong)
    for region, mask in regions.items():
        if mask is None:
            where, ends = slice(None), np.arange(1, len(p) + 1) * p[0].size
        else:
            where, ends = np.flatnonzero(mask), np.cumsum(np.count_nonzero(mask, axis=(1, 2)))
        pixels = [values.reshape(-1)[where] for values in (p, truth, wrong)]
        shared = _probability(*pixels, ends)
        for score, u in scores.items():
            own = sums[score, region]
            for name, values in shared.items():
                own[name] += values
            tables = own["uncertainty"].reshape(-1), own["ranks"].reshape(-1), own["moments"]
            if u.ndim == 1:
                _count_one_per_map(u, *pixels, ends, *tables, own["at_median"])
                u = np.ascontiguousarray(np.broadcast_to(u[:, None, None], wrong.shape))
            else:
                flat = u.reshape(-1)[where]
                _count_uncertainty(flat, *pixels, *tables)
                _count_at_median(flat.view(np.int32), pixels[2], ends, own["at_median"])
            if patches:
                _count_patches(u, wrong, everywhere if mask is None else mask, own["patches"])


def _probability(p: np.ndarray, truth: np.ndarray, wrong: np.ndarray, ends: np.ndarray) -> Arrays:
    """What does not depend on the uncertainty."""
    shape = (2, 2, 2, CONFIDENCE_BINS)  # wrong, true label, p > 1/2
    count, mass, moments = (np.zeros(size, np.int64) for size in (shape, shape, LAYOUT["moments"]))
    confidence = np.zeros(len(ends), np.int64)
    _count_probability(p, truth, wrong, ends, count.reshape(-1), mass.reshape(-1), moments, confidence)
    held = np.diff(ends, prepend=0)
    means = torch.from_numpy((confidence[held > 0] / ONE / held[held > 0]).astype(_F))
    by_label = foreground(*({"": torch.from_numpy(values.sum(0))} for values in (count, mass)))
    return {
        "confidence": count.sum((1, 2)),
        "confidence_sum": mass.sum((0, 1, 2)),
        "moments": moments,
        "map_confidence": np.bincount(bins.confidence_bin(means).numpy(), minlength=CONFIDENCE_BINS),
        **{name: values[""].numpy() for name, values in by_label.items()},
    }


@compiled
def _count_probability(p, truth, wrong, ends, count, mass, moments, map_confidence):
    """Pixels ``[P]``, of map n up to ``ends[n]``. count, mass: by label and confidence bin. map_confidence: sums."""
    likelihood, key, fixed = np.empty(_TILE, _F), np.empty(_TILE, _I), np.empty(_TILE, _I)
    bits = likelihood.view(_I)
    begin = 0
    for n, end in enumerate(ends):
        for start in range(begin, end, _TILE):
            ps = p[start : min(start + _TILE, end)]
            ts, ws = truth[start : start + len(ps)], wrong[start : start + len(ps)]
            c_sum, e_sum, ee_sum, nll_sum = 0, 0, 0, 0
            for i in range(len(ps)):
                q = ps[i]
                c = max(q, _1 - q)
                e = abs(_F(ts[i]) - q)
                likelihood[i] = max(_1 - e, _LEAST)
                fixed[i] = _I(c * _ONE)
                c_sum += np.int64(fixed[i])
                e_sum += np.int64(_I(np.rint(e * _ONE)))
                ee_sum += np.int64(_I(np.rint(e * _ONE * e)))
                ece = _I(c * _ECE)
                ece += _I(_F(ece) < c * _ECE)
                place = min(_I(np.sqrt(np.sqrt((_1 - c) * _2)) * _C_HALF), _C_LAST)
                label = _I(4) * _I(ws[i]) + _I(2) * _I(ts[i]) + _I(q > _HALF)
                key[i] = ece + _C_FIRST - place + label * _I(CONFIDENCE_BINS)
            for i in range(len(ps)):  # ln x = k ln 2 + 2 artanh((m - 1) / (m + 1)) with m from sqrt(1/2) to sqrt 2
                k = (bits[i] - _SQRT_HALF) >> _I(23)
                bits[i] -= k << _I(23)
                s = (likelihood[i] - _1) / (likelihood[i] + _1)
                z = s * s
                series = _2 + z * (_F(2 / 3) + z * (_F(2 / 5) + z * (_F(2 / 7) + z * _F(2 / 9))))
                nll_sum -= np.int64(_I(np.rint((_F(k) * _LN2 + s * series) * _NLL_ONE)))
            for i in range(len(ps)):
                count[key[i]] += 1
                mass[key[i]] += fixed[i]
            map_confidence[n] += c_sum
            moments[2] += e_sum
            moments[3] += ee_sum
            moments[5] += nll_sum
        begin = end


@compiled
def _uncertainty_bin(x, tail):
    place = min(_I(np.sqrt(np.sqrt(tail * _2)) * _U_HALF), _U_LAST)
    place = place if x < _HALF else _U_TOP - place
    return place + _I(x > _TAU_0) + _I(x > _TAU_1) + _I(x > _TAU_2)


@compiled
def _rank_bin(tail_bits, above):
    """above: whether the value is above 1/2; the bits are those of its distance to 0 or 1."""
    rank = min(max((tail_bits >> _R_SHIFT) - _R_LOWEST, _I(0)), _R_LAST)
    return _R_TOP - rank if above else rank


@compiled
def _count_uncertainty(u, p, truth, wrong, fine, ranks, moments):
    tail, e_tail, side = np.empty(_TILE, _F), np.empty(_TILE, _F), np.empty(_TILE, _I)
    bits, e_bits, key = tail.view(_I), e_tail.view(_I), np.empty(_TILE, _I)
    for start in range(0, len(u), _TILE):
        us = u[start : start + _TILE]
        ps, ts, ws = p[start : start + len(us)], truth[start : start + len(us)], wrong[start : start + len(us)]
        u_sum, uu_sum, ue_sum = 0, 0, 0
        for i in range(len(us)):
            x, e = us[i], abs(_F(ts[i]) - ps[i])
            u_sum += np.int64(_I(np.rint(x * _ONE)))
            uu_sum += np.int64(_I(np.rint(x * _ONE * x)))
            ue_sum += np.int64(_I(np.rint(e * _ONE * x)))
            tail[i] = min(x, _1 - x)
            e_tail[i] = min(e, _1 - e)
            side[i] = _I(2) * _I(x > _HALF) + _I(e > _HALF)
            key[i] = _uncertainty_bin(x, tail[i]) + _I(UNCERTAINTY_BINS) * _I(ws[i])
        for i in range(len(us)):
            a, b = _rank_bin(bits[i], side[i] & _I(2)), _rank_bin(e_bits[i], side[i] & _I(1))
            side[i] = b * _I(RANK_BINS) + a
        for i in range(len(us)):
            fine[key[i]] += 1
            ranks[side[i]] += 1
        moments[0] += u_sum
        moments[1] += uu_sum
        moments[4] += ue_sum


@compiled
def _count_one_per_map(u, p, truth, wrong, ends, fine, ranks, moments, at_median):
    """What `_count_uncertainty` and `_count_at_median` do, for maps n of one value ``u[n]`` each."""
    tail, e_tail, side = np.empty(1, _F), np.empty(_TILE, _F), np.empty(_TILE, _I)
    bits, e_bits, found = tail.view(_I), e_tail.view(_I), np.empty(4 * RANK_BINS, _I)
    begin = 0
    for n, end in enumerate(ends):
        x = u[n]
        tail[0] = min(x, _1 - x)
        a = _rank_bin(bits[0], x > _HALF)
        ue_sum = 0
        found[:] = 0
        for start in range(begin, end, _TILE):
            ps = p[start : min(start + _TILE, end)]
            ts = truth[start : start + len(ps)]
            for i in range(len(ps)):
                e = abs(_F(ts[i]) - ps[i])
                ue_sum += np.int64(_I(np.rint(e * _ONE * x)))
                e_tail[i] = min(e, _1 - e)
                side[i] = _I(e > _HALF)
            for i in range(len(ps)):
                # Neighbours are often equal, and adding to one place again and again has to wait for itself.
                side[i] = _rank_bin(e_bits[i], side[i]) + _I(i & 3) * _I(RANK_BINS)
            for i in range(len(ps)):
                found[side[i]] += _I(1)
        for b in range(RANK_BINS):
            ranks[b * RANK_BINS + a] += (
                found[b] + found[b + RANK_BINS] + found[b + 2 * RANK_BINS] + found[b + 3 * RANK_BINS]
            )
        size, wrongs = end - begin, np.count_nonzero(wrong[begin:end])
        place = _uncertainty_bin(x, tail[0])
        fine[place] += size - wrongs
        fine[place + UNCERTAINTY_BINS] += wrongs
        moments[0] += size * np.int64(_I(np.rint(x * _ONE)))
        moments[1] += size * np.int64(_I(np.rint(x * _ONE * x)))
        moments[4] += ue_sum
        at_median[0, 0] += size - wrongs  # no pixel exceeds the median
        at_median[1, 0] += wrongs
        begin = end


@compiled
def _count_at_median(bits, wrong, ends, found):
    """The lower median of each map by its 30 bits, ten at a time: floats of [0, 1] are in the order of their bits."""
    table, count, below = np.empty(4 << 11, _I), np.empty((2, 1024), np.int64), np.empty(2, np.int64)
    begin = 0
    for end in ends:
        if end > begin:
            us, ws = bits[begin:end], wrong[begin:end]
            rank, prefix, digit = (len(us) - 1) // 2, 0, 0
            below[:] = 0
            total = np.count_nonzero(ws)
            for shift in (20, 10, 0):
                table[:] = 0
                for i in range(len(us)):
                    value = us[i] & _I(0x3FFFFFFF)  # -0 is 0
                    if value >> _I(shift + 10) == _I(prefix):
                        table[_I(i & 3) << _I(11) | _I(ws[i]) << _I(10) | (value >> _I(shift)) & _I(1023)] += _I(1)
                for k in range(1024):
                    count[0, k] = table[k] + table[2048 + k] + table[4096 + k] + table[6144 + k]
                    count[1, k] = table[1024 + k] + table[3072 + k] + table[5120 + k] + table[7168 + k]
                digit = 0
                while below.sum() + count[0, digit] + count[1, digit] <= rank:
                    below += count[:, digit]
                    digit += 1
                prefix = prefix << 10 | digit
            certain = below + count[:, digit]
            found[0, 0] += certain[0]
            found[0, 1] += len(us) - total - certain[0]
            found[1, 0] += certain[1]
            found[1, 1] += total - certain[1]
        begin = end


@compiled
def _count_patches(u, wrong, inside, found):
    maps, height, width = u.shape
    padded = -(-width // PATCH) * PATCH
    held, right, doubt = np.empty(padded, _I), np.empty(padded, _I), np.empty(padded, _I)
    for n in range(maps):
        for top in range(0, height, PATCH):
            held[:], right[:], doubt[:] = 0, 0, 0
            for y in range(top, min(top + PATCH, height)):
                us, ws, ins = u[n, y], wrong[n, y], inside[n, y]
                for x in range(width):
                    held[x] += _I(ins[x])
                    right[x] += _I(ins[x] & ~ws[x])
                    doubt[x] += _I(np.rint(us[x] * _PATCH_ONE)) * _I(ins[x])
            for x in range(0, padded, PATCH):
                pixels = held[x] + held[x + 1] + held[x + 2] + held[x + 3]
                if pixels:
                    accurate = right[x] + right[x + 1] + right[x + 2] + right[x + 3]
                    total = _F(doubt[x] + doubt[x + 1] + doubt[x + 2] + doubt[x + 3])
                    size = _F(pixels)
                    level = _I(total > _DOUBT_0 * size) + _I(total > _DOUBT_1 * size) + _I(total > _DOUBT_2 * size)
                    found[_I(2 * accurate < pixels), level] += 1
