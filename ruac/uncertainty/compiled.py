"""The variance of a mask's logits in one pass over its image tokens, compiled for the CPU.

Softplus, bounds and the ratio of Gamma functions that lead from a layer's answer to a channel's coefficient of
variation are one function of one number, read off a table. Whole-tensor operations take a dozen passes for it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import gammaln
from torch import Tensor

from ruac.base.compiled import FAST, compiled, in_parts

_STEP = 1 / 400  # of the table: lines between its entries are within a relative 1e-5 for shapes from 0.5 on

Table = tuple[float, float, np.ndarray]


@lru_cache(maxsize=8)
def cv2_table(least: float, most: float) -> Table:
    """What `weibull.cv2` is of ``softplus(x)`` between the bounds: its first x, entries per unit of x, and entries."""
    first, last = (shape + math.log(-math.expm1(-shape)) for shape in (least, most))
    x = np.linspace(first, last, max(2, math.ceil((last - first) / _STEP) + 1))
    shape = np.logaddexp(0, x).clip(least, most)
    values = np.expm1(gammaln(1 + 2 / shape) - 2 * gammaln(1 + 1 / shape))
    return first, (len(x) - 1) / (last - first), values.astype(np.float32)


def weighted_squares(mean: Tensor, raw: Tensor, pool: int, table: Table, spread: Tensor, still: Tensor) -> Tensor:
    """``sum_c mean_c^2 (spread_kc cv2_c + still_kc)``, ``float32 [N, K, h, w]``.

    mean: ``[N, c, h, w]`` and raw ``[N, c or 1, h / pool, w / pool]``, rounded up, of which `table` knows the cv2.
    spread, still: ``[N, K, c]``. As many threads as torch has.
    """
    count, channels, rows, columns = mean.shape
    x, planes = _laid_out(mean)
    r = raw.detach().expand(-1, channels, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
    first, scale, values = table
    out = torch.empty(count, spread.shape[1], rows, columns)
    weights = [w.float().contiguous().numpy() for w in (spread, still)]
    numbers = np.float32(first), np.float32(scale)

    def work(start: int, stop: int) -> None:
        _weighted_squares(x, planes, r, pool, *numbers, values, *weights, start, stop, out.numpy())

    in_parts(work, count * r.shape[1])
    return out


def pooled(maps: Tensor, pool: int) -> Tensor:
    """Means of squares of `pool` pixels, of what of them there is, ``float32 [N, c, h / pool, w / pool]`` rounded up,
    channels last: of which a convolution makes less work."""
    count, channels, rows, columns = maps.shape
    x, planes = _laid_out(maps)
    if not planes:
        return F.avg_pool2d(maps.float(), pool, ceil_mode=True, count_include_pad=False) if pool > 1 else maps.float()
    out = torch.empty(count, math.ceil(rows / pool), math.ceil(columns / pool), channels)
    in_parts(lambda start, stop: _pooled(x, pool, start, stop, out.numpy()), count * out.shape[1])
    return out.permute(0, 3, 1, 2)


def _laid_out(maps: Tensor) -> tuple[np.ndarray, bool]:
    """The numbers as they lie, and whether channel by channel: ``[N, c, h, w]``, else ``[N, h, w, c]``."""
    maps = maps.detach().float()
    if maps.is_contiguous():  # also where both hold, as of one channel
        return maps.numpy(), True
    return maps.permute(0, 2, 3, 1).contiguous().numpy(), False


def _row_of(x, n, y, row):
    """Row y of map n of ``x [N, c, h, w]``, ``[w, c]``."""
    for c in range(row.shape[1]):
        for z in range(row.shape[0]):
            row[z, c] = x[n, c, y, z]


_row = compiled(_row_of)


def _pools(x, pool, start, stop, out):
    """Lines of squares `start` to `stop`, counted through all objects."""
    rows, columns = x.shape[2:]
    row = np.empty((columns, out.shape[3]), np.float32)
    for line in range(start, stop):
        n, i = line // out.shape[1], line % out.shape[1]
        out[n, i] = 0
        last = min(i * pool + pool, rows)
        for y in range(i * pool, last):
            _row(x, n, y, row)
            for z in range(columns):
                for c in range(out.shape[3]):
                    out[n, i, z // pool, c] += row[z, c]
        for j in range(out.shape[2]):
            pixels = np.float32((last - i * pool) * (min(j * pool + pool, columns) - j * pool))
            for c in range(out.shape[3]):
                out[n, i, j, c] /= pixels


_pooled = compiled(_pools)


def _lines(x, planes, raw, pool, first, scale, values, spread, still, start, stop, out):
    """Lines of squares `start` to `stop`, counted through all objects."""
    channels, tokens = raw.shape[3], spread.shape[1]
    lines = np.empty((pool, out.shape[3], channels), np.float32)
    zero, last = np.float32(0), np.float32(len(values) - 1)
    highest = np.int32(len(values) - 2)
    entry, beyond, cv2 = np.empty(channels, np.int32), np.empty(channels, np.float32), np.empty(channels, np.float32)
    for line in range(start, stop):
        n, i = line // raw.shape[1], line % raw.shape[1]
        top, bottom = i * pool, min(i * pool + pool, out.shape[2])
        near = lines if planes else x[n, top:bottom]
        for y in range(top, bottom if planes else top):
            _row(x, n, y, lines[y - top])
        for j in range(raw.shape[2]):
            for c in range(channels):
                at = (raw[n, i, j, c] - first) * scale
                inside = at if at > zero else zero  # also where it is no number, which shall find no entry outside
                inside = inside if inside < last else last
                entry[c] = min(np.int32(inside), highest)
                beyond[c] = inside - np.float32(entry[c]) if at == at else at
            for c in range(channels):
                k = entry[c]
                cv2[c] = values[k] + beyond[c] * (values[k + 1] - values[k])
            for y in range(top, bottom):
                for z in range(j * pool, min(j * pool + pool, out.shape[3])):
                    for t in range(tokens):
                        total = zero
                        for c in range(channels):
                            total += near[y - top, z, c] ** 2 * (cv2[c] * spread[n, t, c] + still[n, t, c])
                        out[n, t, y, z] = total


_weighted_squares = compiled(_lines, fastmath=FAST)
