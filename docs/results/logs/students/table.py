"""The results of run_students.py as students.csv (a row per run) and as Markdown tables (means over seeds).

python docs/results/logs/students/table.py runs/students docs/results/logs/students/students.csv
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from ruac.evaluation.metrics.semantic import SemanticSums

METRICS = ["miou", "accuracy", "ece", "p_acc_cert", "p_unc_inacc", "rss"]
NAMES = {
    "supervised": "label only",
    "pseudo_unfiltered": "masks, unfiltered",
    "pseudo_filtered": "masks, conformal filter",
    "pseudo_half": "masks, kept above 1/2 (control)",
    "self_training": "labels, then own answers",
    "unfiltered_then_own": "masks, unfiltered, then own answers",
    "conformal_sam": "**ConformalSAM**: conformal filter, then own answers",
    "fixmatch": "FixMatch",
    "unimatch_v1": "UniMatch V1",
    "unimatch_v2": "UniMatch V2",
    "conformal_unimatch": "ConformalSAM, then UniMatch V2 (plug-in)",
    "conformal_image": "ConformalSAM, one threshold per picture",
    "conformal_clusters": "ConformalSAM, thresholds per cluster",
    "conformal_annuli": "ConformalSAM, thresholds per ring",
}
# Masks of SAM 2, conformal filter, own answers in stage II: the paper's ablation (SEEM, CP, SR).
ABLATION = {
    "supervised": "   ",
    "self_training": "  x",
    "pseudo_unfiltered": "x  ",
    "unfiltered_then_own": "x x",
    "pseudo_filtered": "xx ",
    "conformal_sam": "xxx",
}
DRAWS = 2000


def read(runs: Path) -> pd.DataFrame:
    rows = []
    for path in sorted(runs.glob("*/*/*/result.json")):
        row, seed, place = path.parent.name, path.parents[1].name, path.parents[2].name
        domain, labelled = place.rsplit("_", 1)
        result = json.loads(path.read_text())
        kept = result["pseudo_labels"] or {"config": {"filter": "", "alpha": float("nan")}}
        rows.append(
            {
                "domain": domain,
                "labelled": int(labelled),
                "row": row,
                "seed": int(seed),
                "filter": kept["config"]["filter"],
                "alpha": kept["config"]["alpha"],
                **{name: result["validation"][name] for name in METRICS},
            }
        )
    return pd.DataFrame(rows)


def resampled(folder: Path, metric: str, weights: np.ndarray) -> np.ndarray:
    """A score of one run in every draw of validation pictures; weights: ``[draws, pictures]``."""
    with np.load(folder / "pictures.npz") as file:
        sums = {name: np.tensordot(weights, file[name], axes=1) for name in file.files}
    one, found = SemanticSums(sums["confusion"].shape[-1]), []
    for draw in range(len(weights)):
        vars(one).update({name: values[draw] for name, values in sums.items()})
        found.append(one.compute()[metric])
    return np.array(found)


def interval(place: Path, row: str, seeds: list[int], metric: str, cache: dict) -> tuple[float, float]:
    """95 % of the mean over seeds of (row - label only), over draws of validation pictures, the same for both."""

    def score(name: str, seed: int) -> np.ndarray:
        folder = place / str(seed) / name
        if (folder, metric) not in cache:
            with np.load(folder / "pictures.npz") as file:
                count = len(file["confusion"])
            weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), DRAWS)
            cache[folder, metric] = resampled(folder, metric, weights)
        return cache[folder, metric]

    gains = np.mean([score(row, seed) - score("supervised", seed) for seed in seeds], axis=0)
    return tuple(np.quantile(gains, [0.025, 0.975]))


def named(row: str) -> str:
    kind, _, alpha = row.rpartition("_")
    return f"{NAMES[kind]}, alpha {alpha}" if row not in NAMES else NAMES[row]


def main(runs: Path, out: Path) -> None:
    table, cache = read(runs), {}
    table.to_csv(out, index=False, float_format="%.5f")
    for (domain, labelled), part in table.groupby(["domain", "labelled"]):
        place = runs / f"{domain}_{labelled}"
        print(f"\n## {domain}, {labelled} labelled pictures\n")
        print("| row | seeds | mIoU | over label only | 95 % | ECE | p(acc\\|cert) | p(unc\\|inacc) | RSS | RSS over |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
        base = part[part.row == "supervised"].set_index("seed")
        for row, own in sorted(part.groupby("row"), key=lambda item: item[1].miou.mean()):
            own = own.set_index("seed")
            shared = sorted(set(own.index) & set(base.index))
            gains = ranges = rss = ""
            if row != "supervised" and shared:
                gain = 100 * (own.miou - base.miou).loc[shared]
                gains = f"{gain.mean():+.1f} ({', '.join(f'{g:+.1f}' for g in gain)})"
                low, high = interval(place, row, shared, "miou", cache)
                ranges = f"{100 * low:+.1f} to {100 * high:+.1f}"
                low, high = interval(place, row, shared, "rss", cache)
                rss = f"{(own.rss - base.rss).loc[shared].mean():+.3f} ({low:+.3f} to {high:+.3f})"
            spread = f" ± {100 * own.miou.std():.1f}" if len(own) > 1 else ""
            others = " | ".join(f"{own[name].mean():.3f}" for name in METRICS[2:])
            print(
                f"| {named(row)} | {len(own)} | {100 * own.miou.mean():.1f}{spread} | {gains} | {ranges} "
                f"| {others} | {rss} |"
            )
    print(
        "\n## The ablation\n\n| masks | filter | own answers | "
        + " | ".join(f"{domain}, {labelled}" for (domain, labelled), _ in table.groupby(["domain", "labelled"]))
        + " |"
    )
    print("|:-:|:-:|:-:|" + "---:|" * table.groupby(["domain", "labelled"]).ngroups)
    for row, marks in ABLATION.items():
        cells = []
        for _, part in table.groupby(["domain", "labelled"]):
            own, base = (part[part.row == name].set_index("seed").miou for name in (row, "supervised"))
            gain = 100 * (own - base).dropna()
            cells.append(f"{gain.mean():+.1f} ({len(gain)})" if len(gain) else "")
        print(f"| {' | '.join(marks)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
