"""The variance of a mask's logits in one pass over its image tokens, compiled for the CPU.

Softplus, bounds and the ratio of Gamma functions that lead from a layer's answer to a channel's coefficient of
variation are one function of one number, read off a table. Whole-tensor operations take a dozen passes for it.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor

from ruac.base.compiled import compiled

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

    mean: ``[N, c, h, w]`` and raw ``[N, c or 1, h / pool, w / pool]``, rounded up, of which `table` knows the cv2; both
    are read fastest if their channels are last. spread, still: ``[N, K, c]``. As many threads as torch has.
    """
    count, channels, rows, columns = mean.shape
    x = _last(mean)
    r = _last(raw.expand(-1, channels, -1, -1))
    first, scale, values = table
    out = torch.empty(count, spread.shape[1], rows, columns)
    weights = [w.float().contiguous().numpy() for w in (spread, still)]
    numbers = np.float32(first), np.float32(scale)
    lines = count * r.shape[1]
    threads = min(torch.get_num_threads(), lines)

    def work(part: range) -> None:
        _weighted_squares(x, r, pool, *numbers, values, *weights, part.start, part.stop, out.numpy())

    if threads == 1:
        work(range(lines))
    else:
        bounds = [lines * k // threads for k in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool_of_threads:
            list(pool_of_threads.map(work, [range(*pair) for pair in pairwise(bounds)]))
    return out


def _last(maps: Tensor) -> np.ndarray:
    return maps.detach().permute(0, 2, 3, 1).contiguous().numpy()


def _lines(x, raw, pool, first, scale, values, spread, still, start, stop, out):
    """Lines of squares `start` to `stop`, counted through all objects."""
    channels, tokens = x.shape[3], spread.shape[1]
    zero, last = np.float32(0), np.float32(len(values) - 1)
    top = np.int32(len(values) - 2)
    entry, beyond, cv2 = np.empty(channels, np.int32), np.empty(channels, np.float32), np.empty(channels, np.float32)
    for line in range(start, stop):
        n, i = line // raw.shape[1], line % raw.shape[1]
        for j in range(raw.shape[2]):
            for c in range(channels):
                at = (raw[n, i, j, c] - first) * scale
                inside = at if at > zero else zero  # also where it is no number, which shall find no entry outside
                inside = inside if inside < last else last
                entry[c] = min(np.int32(inside), top)
                beyond[c] = inside - np.float32(entry[c]) if at == at else at
            for c in range(channels):
                k = entry[c]
                cv2[c] = values[k] + beyond[c] * (values[k + 1] - values[k])
            for y in range(i * pool, min(i * pool + pool, x.shape[1])):
                for z in range(j * pool, min(j * pool + pool, x.shape[2])):
                    for t in range(tokens):
                        total = zero
                        for c in range(channels):
                            total += x[n, y, z, c] ** 2 * (cv2[c] * spread[n, t, c] + still[n, t, c])
                        out[n, t, y, z] = total


_weighted_squares = compiled(_lines, fastmath={"reassoc", "contract", "nsz"})
