"""Fit vanilla SAM 2's temperature on held-out source images: ruac calibrate kind=temperature."""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac fit-temperature source=DIR@val out=runs/temperature"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("--config", type=Path, help="YAML of differences from TemperatureFitConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)

    from ruac.base.config import load_config
    from ruac.fitting.calibrate import run_calibrate
    from ruac.fitting.older import TemperatureFitConfig

    config = load_config(TemperatureFitConfig, args.config, args.overrides)
    print(f"temperature: {run_calibrate(config.calibration())}")
