"""Is a difference between two models more than chance? Bootstrap over objects, Wilcoxon over domains."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from ruac.evaluation.metrics.band_counts import pooled_metrics

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


def pooled_bootstrap(
    domains: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Ours - theirs in each of `pooled_metrics`, mean over domains, with percentile intervals over images.

    domains: the image of each object, ``[N]`` of anything comparable, and the `band_counts` ``[N, 2, BINS]`` of both
    models on these objects. Whole images are drawn with replacement within their domain, since objects of an image
    share its difficulties; both models are drawn together. Domains where a metric has no value are left out of it.
    """
    values, draws = [], []
    for name, (images, *models) in domains.items():
        inverse = np.unique(images, return_inverse=True)[1]
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        number = inverse.max() + 1
        times = rng.multinomial(number, np.full(number, 1 / number), size=resamples)  # [R, images]
        times = np.concatenate([np.ones((1, number), dtype=times.dtype), times])[:, inverse]  # [1 + R, N]
        both = [pooled_metrics(np.tensordot(times.astype(np.float64), counts, axes=1)) for counts in models]
        difference = {metric: both[0][metric] - both[1][metric] for metric in both[0]}
        values.append({metric: found[0] for metric, found in difference.items()})
        draws.append({metric: found[1:] for metric, found in difference.items()})
    edges, found = [(1 - level) / 2, (1 + level) / 2], {}
    for metric in values[0] if values else ():
        held = [index for index, value in enumerate(values) if not np.isnan(value[metric])]
        if held:
            mean = np.nanmean([draws[index][metric] for index in held], axis=0)
            low, high = np.quantile(mean, edges)
            found[metric] = Interval(float(np.mean([values[index][metric] for index in held])), float(low), float(high))
    return found


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
