"""Label pictures from prompts by class, and keep what conformal sets allow.

Calibrated on a labelled subset of the folder (ConformalSAM, stage I). A pixel whose set is empty is 255.
"""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac pseudo-label source=DIR backbone=nano prompts=boxes fraction=0.25 alpha=0.05 out=runs/pseudo_labels"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("--config", type=Path, help="YAML of differences from PseudoLabelConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)

    import pandas as pd

    from ruac.base.config import load_config
    from ruac.labelling.run import PseudoLabelConfig, run_pseudo_label

    out = run_pseudo_label(load_config(PseudoLabelConfig, args.config, args.overrides))
    print(pd.read_csv(out / "statistics.csv").round(3).to_string(index=False, na_rep="-"))
    print(f"labels: {out / 'labels'}")
