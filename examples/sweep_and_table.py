"""Judge models on unseen domains beside vanilla SAM 2, and print the table.

python examples/sweep_and_table.py [OUT]
"""

import sys
from pathlib import Path

from ruac.data.synthetic.scene_sets import SceneSets, write_scene_sets
from ruac.evaluation.report import build_report
from ruac.evaluation.report.table import domain_table, to_markdown
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.runner import run_sweep
from ruac.inference.predictor import DEFAULT


def main(out: str = "runs/examples/sweep") -> None:
    scenes = Path(out) / "scenes"
    write_scene_sets(SceneSets(out=str(scenes), train=1, val=1, domain=2, shifts=["fog", "night"]))
    # As `ruac sweep domains 'domains=[DIR]' 'models=[{name: ruac, export: DIR}, ...]' out=...` does.
    config = SweepConfig(
        models=[
            ModelConfig("ruac", export=str(DEFAULT)),  # vanilla SAM 2 is swept beside it by itself
            ModelConfig("zoom", export=str(DEFAULT), looks=["zoom"]),
        ],
        domains=[str(scenes / "domains")],
        out=f"{out}/results",
    )
    config.validate()
    results = run_sweep(config)
    print(to_markdown(domain_table(results, metrics=("jf", "ece", "auroc"))))
    print(f"report: {build_report(results)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
