"""Tables of a sweep with looks: means over domains, intervals over pictures, Wilcoxon's p over domains.

python docs/results/logs/looks/table.py SWEEP BASELINE [NAME=SWEEP_ROW ...]

Band; each row's total (of vanilla its entropy). Means, better domains and p from domains.csv; intervals of the
difference to BASELINE by resampling pictures within their domains (`pooled_bootstrap`; J by paired means), 1,000 times,
on the per-object counts of objects.parquet. The reference is left out.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from ruac.evaluation.metrics.significance import pooled_bootstrap, wilcoxon

LOWER = ("aurc", "ece", "nll")
SHOWN = ("j", "f", "auroc", "aurc", "ece", "prr", "nll")


def main(folder, baseline):
    table = pd.read_csv(Path(folder) / "domains.csv")
    table = table[(table.region == "band") & ~table.reference & table.score.isin(["total", "entropy"])]
    wide = table.pivot(index="domain", columns="model", values=list(SHOWN))
    objects = pd.read_parquet(Path(folder) / "objects.parquet")
    objects = objects[objects.domain.isin(wide.index)].sort_values(["domain", "image", "object"])
    groups = dict(tuple(objects.groupby("model")))
    print(f"{len(wide)} domains, {objects.image.groupby(objects.domain).nunique().sum()} pictures, ", end="")
    print(f"{len(groups[baseline])} objects")
    for model in table.model.unique():
        cells = []
        for key in SHOWN:
            ours, theirs = wide[key][model], wide[key][baseline]
            better = int(((ours < theirs) if key in LOWER else (ours > theirs)).sum())
            cells.append(f"{key} {ours.mean():.4f} ({better}, {wilcoxon(ours.values, theirs.values):.6f})")
        print(f"{model:16s} " + "  ".join(cells))
        if model != baseline:
            print(" " * 17 + intervals(groups[model], groups[baseline]), flush=True)


def intervals(ours, theirs):
    domains, gains = {}, []
    for name, rows in ours.groupby("domain"):
        other = theirs[theirs.domain == name]
        counts = [np.stack(each.band_counts.values).reshape(len(each), 2, -1) for each in (rows, other)]
        domains[name] = (rows.image.values, *counts)
        gains.append((rows.image.values, rows.j.values - other.j.values))
    found = pooled_bootstrap(domains, resamples=1000)
    said = [f"{metric} {x.value:+.4f} [{x.low:+.4f}, {x.high:+.4f}]" for metric, x in found.items()]
    rng = np.random.default_rng(0)
    draws = np.mean([resampled(images, values, rng) for images, values in gains], axis=0)
    low, high = np.quantile(draws[1:], [0.025, 0.975])
    return f"over pictures: j {draws[0]:+.4f} [{low:+.4f}, {high:+.4f}]  " + "  ".join(said)


def resampled(images, values, rng, times=1000):
    """Mean of the values, and of 1,000 draws of whole pictures."""
    sums = pd.DataFrame({"image": images, "value": values}).groupby("image").value.agg(["sum", "count"]).values
    picks = rng.integers(len(sums), size=(times, len(sums)))
    drawn = sums[picks].sum(1)
    return np.concatenate([[values.mean()], drawn[:, 0] / drawn[:, 1]])


if __name__ == "__main__":
    main(*sys.argv[1:3])
