"""Readers by kind of second picture on the domains: kinds_domains.txt, from a sweep with rows KIND_SEED.

python docs/results/logs/looks/kinds_table.py runs/kinds/domains.csv

Band; mean over domains, mean and deviation over seeds, and the difference in AUROC to the kinds clean and clean_stress,
mean over seeds, 95 % over draws of domains.
"""

import sys

import numpy as np
import pandas as pd

SEEDS = 3
KINDS = ("clean", "clean_stress", "clean_random", "clean_paper", "clean_random_reach", "clean_reach")
SHOWN = ("auroc", "aurc", "ece", "prr", "nll")


def main(path):
    table = pd.read_csv(path)
    table = table[(table.region == "band") & ~table.reference & table.score.isin(["total", "entropy"])]
    wide = table.pivot(index="domain", columns="model", values=list(SHOWN))
    vanilla = table[table.model == "vanilla"]
    print(f"{len(wide)} domains, {vanilla.images.sum()} pictures, {vanilla.objects.sum()} objects")
    for row in ("vanilla", "zoom_keep"):
        print(row, " ".join(f"{key} {wide[key][row].mean():.4f}" for key in SHOWN))
    rng = np.random.default_rng(0)
    for kind in KINDS:
        rows = [f"{kind}_{seed}" for seed in range(SEEDS)]
        means = {key: [wide[key][row].mean() for row in rows] for key in SHOWN}
        print(kind, " ".join(f"{key} {np.mean(v):.4f} +- {np.std(v, ddof=1):.4f}" for key, v in means.items()))
        for base in ("clean", "clean_stress"):
            gains = [100 * (wide.auroc[row] - wide.auroc[f"{base}_{seed}"]) for seed, row in enumerate(rows)]
            gain = np.mean(gains, axis=0)
            draws = gain[rng.integers(len(gain), size=(4000, len(gain)))].mean(1)
            low, high = np.quantile(draws, [0.025, 0.975])
            print(f"    over {base} {gain.mean():+.2f} [{low:+.2f}, {high:+.2f}], better in {(gain > 0).sum()}")


if __name__ == "__main__":
    main(sys.argv[1])
