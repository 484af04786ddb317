"""Zero-shot evaluation over many domains: tools/sweep.py CONFIG.yaml key=value ..."""

import argparse

from ruac.config import load_config
from ruac.errors import run_tool
from ruac.report import build_report
from ruac.sweep.runner import SweepConfig, is_main_process, run_sweep


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="YAML of differences from SweepConfig")
    parser.add_argument("overrides", nargs="*", help="key=value")
    args = parser.parse_intermixed_args(argv)
    out = run_sweep(load_config(SweepConfig, args.config, args.overrides))
    if is_main_process():
        print(f"results: {out}\nreport:  {build_report(out)}")


if __name__ == "__main__":
    run_tool(main)
