"""Fit a scale that reads the answer, to SAM 2 or to an exported head: tools/fit_context.py source=DIR key=value ..."""

import argparse
from pathlib import Path

from ruac.base.config import load_config
from ruac.base.errors import run_tool
from ruac.calibration.local_temperature import ContextFitConfig, run_context_fit


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, help="YAML of differences from ContextFitConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)
    print(f"export: {run_context_fit(load_config(ContextFitConfig, args.config, args.overrides))}")


if __name__ == "__main__":
    run_tool(main)
