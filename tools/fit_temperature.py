"""Fit vanilla SAM 2's temperature on held-out source images: tools/fit_temperature.py source=DIR@SPLIT key=value ..."""

import argparse
from pathlib import Path

from ruac.base.config import load_config
from ruac.base.errors import run_tool
from ruac.calibration.temperature import TemperatureFitConfig, run_fit


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, help="YAML of differences from TemperatureFitConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)
    print(f"temperature: {run_fit(load_config(TemperatureFitConfig, args.config, args.overrides))}")


if __name__ == "__main__":
    run_tool(main)
