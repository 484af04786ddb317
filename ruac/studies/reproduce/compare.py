"""Means over seeds, and what differences between rows are worth: over domains, and over objects."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ruac.evaluation.metrics.band_counts import BINS
from ruac.evaluation.metrics.significance import paired_bootstrap, pooled_bootstrap, wilcoxon
from ruac.evaluation.results.names import COLUMNS
from ruac.studies.reproduce.collect import PLACE, Collected

METRICS = ("jf", "j", "f", "ece", "auroc", "aupr", "aurc", "prr", "pavpu", "rss", "pcc", "brier", "nll")
OBJECT_SCORES = ("jf", "gap", "iou_error")
PIXEL_SCORES = ("auroc", "ece", "aurc", "prr")
ENTRY = ["row", "score", "region"]


def over_seeds(collected: Collected) -> pd.DataFrame:
    """Mean over unseen domains: per row, score, region and metric its mean and standard deviation over seeds.

    The deviation is that of a sample (nan for a single seed). Columns: ENTRY, main, metric, mean, deviation, seeds.
    """
    unseen = _long(collected.values[~collected.values.reference])
    keys = [*ENTRY, "main", "metric"]
    per_seed = unseen.groupby([*keys, "seed"], sort=False).value.mean()
    table = per_seed.groupby(keys, sort=False).agg(["mean", "std", "count"])
    return table.set_axis(["mean", "deviation", "seeds"], axis=1).reset_index()


def over_domains(collected: Collected, baseline: str) -> pd.DataFrame:
    """Every row's main score against that of `baseline`, paired by domain, after a mean over seeds.

    Columns: row, region, metric, baseline, difference, better (domains where the row is), worse, domains, p of the
    two-sided Wilcoxon signed-rank test.
    """
    unseen = _long(collected.values[~collected.values.reference & collected.values.main])
    per_domain = unseen.groupby(["row", "region", "metric", "domain"], sort=False).value.mean()
    base = per_domain.xs(baseline).sort_index()
    lines = []
    for (row, region, metric), block in per_domain.groupby(level=[0, 1, 2], sort=False):
        if row == baseline:
            continue
        ours, theirs = block.droplevel([0, 1, 2]).align(base.loc[region, metric], join="inner")
        gain = (ours - theirs) * (1 if COLUMNS[metric].higher else -1)
        lines.append(
            {"row": row, "region": region, "metric": metric, "baseline": baseline, "difference": (ours - theirs).mean()}
            | {"better": int((gain > 0).sum()), "worse": int((gain < 0).sum()), "domains": int(gain.notna().sum())}
            | {"p": wilcoxon(ours.to_numpy(), theirs.to_numpy())}
        )
    return pd.DataFrame(lines)


def over_objects(collected: Collected, baseline: str, *, replicates: int) -> pd.DataFrame:
    """Every row against `baseline`, paired by object, with 95 % intervals of `paired_bootstrap`.

    The seeds of a row are averaged before, so the interval speaks of the objects, not of the training. Columns: row,
    metric, baseline, difference, low, high.
    """
    scores = collected.objects.groupby(["row", *PLACE], sort=False)[list(OBJECT_SCORES)].mean()
    base, lines = scores.xs(baseline), []
    for row in collected.rows:
        if row == baseline:
            continue
        own = scores.xs(row).reindex(base.index)
        for metric in OBJECT_SCORES:
            ours, theirs = (
                {domain: values.to_numpy() for domain, values in frame[metric].groupby(level="domain")}
                for frame in (own, base)
            )
            found = paired_bootstrap(ours, theirs, resamples=replicates)
            difference = {"difference": found.value, "low": found.low, "high": found.high}
            lines.append({"row": row, "metric": metric, "baseline": baseline} | difference)
    return pd.DataFrame(lines)


def over_pixels(collected: Collected, baseline: str, *, replicates: int) -> pd.DataFrame:
    """Every row's entropy in the object band against that of `baseline`, with 95 % intervals of `pooled_bootstrap`.

    The pixels of a row's seeds are pooled before. Columns as in `over_objects`; metrics are `PIXEL_SCORES`.
    """
    pooled = collected.objects.groupby(["row", *PLACE], sort=False).band_counts.agg(
        lambda counts: np.sum(np.stack(counts), axis=0)
    )
    base, lines = pooled.xs(baseline), []
    for row in collected.rows:
        if row == baseline:
            continue
        own, domains = pooled.xs(row).reindex(base.index), {}
        for domain, theirs in base.groupby(level="domain", sort=False):
            ours = own[theirs.index]
            images = theirs.index.get_level_values("image").to_numpy(dtype=str)
            domains[domain] = images, *(np.stack(x.to_numpy()).reshape(-1, 2, BINS) for x in (ours, theirs))
        for metric, found in pooled_bootstrap(domains, resamples=replicates).items():
            difference = {"difference": found.value, "low": found.low, "high": found.high}
            lines.append({"row": row, "metric": metric, "baseline": baseline} | difference)
    return pd.DataFrame(lines)


def _long(values: pd.DataFrame) -> pd.DataFrame:
    keys = [*ENTRY, "main", "seed", "domain"]
    metrics = [metric for metric in METRICS if metric in values]
    return values.melt(id_vars=keys, value_vars=metrics, var_name="metric")
