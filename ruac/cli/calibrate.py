"""Calibrate a frozen model on held-out source images.

Kinds: temperature, clustered, local, answer, clicks, ensemble, isotonic, beta, histogram. What each reads, and when to
use which: docs/calibration.md.
"""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac calibrate kind=local source=DIR@val backbone=nano out=runs/nano_local"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("--config", type=Path, help="YAML of differences from CalibrateConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)

    from ruac.base.config import load_config
    from ruac.fitting.calibrate import CalibrateConfig, run_calibrate

    print(f"export: {run_calibrate(load_config(CalibrateConfig, args.config, args.overrides))}")
