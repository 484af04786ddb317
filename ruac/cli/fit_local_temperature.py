"""Fit a scale that reads the answer, to SAM 2 or to an exported head: ruac calibrate kind=answer draw=stressed."""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac fit-local-temperature source=DIR split=train backbone=nano out=runs/fitted"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("--config", type=Path, help="YAML of differences from LocalTemperatureFitConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)

    from ruac.base.config import load_config
    from ruac.fitting.calibrate import run_calibrate
    from ruac.fitting.older import LocalTemperatureFitConfig

    config = load_config(LocalTemperatureFitConfig, args.config, args.overrides)
    print(f"export: {run_calibrate(config.calibration())}")
