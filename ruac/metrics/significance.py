"""Is a difference between two models more than chance? Bootstrap over objects, Wilcoxon over domains."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

_DRAWS_AT_ONCE = 1 << 22  # objects drawn together: bounds memory


class Interval(NamedTuple):
    """A value and its bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    domains: Mapping[str, np.ndarray], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean over domains of the mean over objects, with the percentile interval of a bootstrap over objects.

    domains: per-object values ``[N]`` of each domain, e.g. J; for a paired comparison the differences of two models on
    the same objects. Objects are drawn with replacement within their domain, so that the interval speaks of these
    domains and not of others; for that see `wilcoxon`. One domain in the mapping gives its own interval. The draws of
    a domain depend on its name and the seed only. Raises `ValueError` naming a domain without objects or with NaN.
    """
    if not domains:
        raise ValueError("domains: expected at least one")
    values, draws = [], []
    for name, given in domains.items():
        objects = np.asarray(given, dtype=np.float64)
        if objects.ndim != 1 or not len(objects) or np.isnan(objects).any():
            raise ValueError(f"domain {name!r}: expected [N] values of at least one object, none of them NaN")
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        values.append(objects.mean())
        draws.append(_means(objects, resamples, rng))
    low, high = np.quantile(np.mean(draws, axis=0), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean(values)), float(low), float(high))


def paired_bootstrap(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], **options: float) -> Interval:
    """`bootstrap_interval` of ours - theirs: per-object values by domain, the same objects in the same order.

    Raises `ValueError` if the domains or the numbers of objects differ.
    """
    if set(ours) != set(theirs):
        raise ValueError(f"domains differ: {sorted(set(ours) ^ set(theirs))} are of one model only")
    for name in ours:
        if np.shape(ours[name]) != np.shape(theirs[name]):
            raise ValueError(f"domain {name!r}: {len(ours[name])} and {len(theirs[name])} objects cannot be paired")
    return bootstrap_interval({name: np.subtract(ours[name], theirs[name]) for name in ours}, **options)


def wilcoxon(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Two-sided p-value of the Wilcoxon signed-rank test over domains (Demsar, JMLR 2006, section 3.1.3).

    ours, theirs: one value per domain, ``[D]``. Domains where either is nan are left out; 1 where no domain differs.
    Exact up to 50 domains without ties (scipy). Raises `ValueError` for other shapes.
    """
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if ours.ndim != 1 or ours.shape != theirs.shape:
        raise ValueError(f"ours {list(ours.shape)} and theirs {list(theirs.shape)}: expected [D] both")
    difference = ours - theirs
    difference = difference[~np.isnan(difference)]
    return float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0


def _means(objects: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    step = max(1, _DRAWS_AT_ONCE // len(objects))
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    return np.concatenate([objects[rng.integers(len(objects), size=(size, len(objects)))].mean(1) for size in sizes])
