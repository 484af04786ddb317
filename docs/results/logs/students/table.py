"""The results of run_students.py as students.csv (a row per run) and as Markdown tables (means over seeds).

python docs/results/logs/students/table.py runs/students docs/results/logs/students/students.csv
"""

import json
import sys
from pathlib import Path

import pandas as pd

METRICS = ["miou", "accuracy", "ece", "p_acc_cert", "p_unc_inacc", "rss"]


def main(runs: Path, out: Path) -> None:
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
    table = pd.DataFrame(rows)
    table.to_csv(out, index=False, float_format="%.5f")
    for (domain, labelled), part in table.groupby(["domain", "labelled"]):
        print(f"\n{domain}, {labelled} labelled pictures\n")
        print("| row | seeds | mIoU | over label only | ECE | p(acc\\|cert) | p(unc\\|inacc) | RSS |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        base = part[part.row == "supervised"].set_index("seed")
        for row, own in sorted(part.groupby("row"), key=lambda item: item[1].miou.mean()):
            own = own.set_index("seed")
            gain = 100 * (own.miou - base.miou).dropna()
            gains = "" if row == "supervised" else f"{gain.mean():+.1f} ({', '.join(f'{g:+.1f}' for g in gain)})"
            spread = f" ± {100 * own.miou.std():.1f}" if len(own) > 1 else ""
            others = " | ".join(f"{own[name].mean():.3f}" for name in METRICS[2:])
            print(f"| {row} | {len(own)} | {100 * own.miou.mean():.1f}{spread} | {gains} | {others} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
