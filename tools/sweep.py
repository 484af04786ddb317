"""Zero-shot evaluation over many domains: tools/sweep.py CONFIG.yaml key=value ... [--dry-run]

Exit status 1 says that images could not be read; they are listed, and a rerun tries them again.
"""

import argparse
import sys

from ruac.base.config import load_config
from ruac.base.errors import run_tool
from ruac.evaluation.report import build_report
from ruac.evaluation.report.table import write_tables
from ruac.evaluation.sweep.estimate import estimate
from ruac.evaluation.sweep.results import unreadable
from ruac.evaluation.sweep.runner import SweepConfig, is_main_process, run_sweep


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="YAML of differences from SweepConfig")
    parser.add_argument(
        "overrides", nargs="*", help="key=value, such as limit=20 for the first 20 images of each domain"
    )
    parser.add_argument("--dry-run", action="store_true", help="count, estimate time and disk space, and write nothing")
    args = parser.parse_intermixed_args(argv)
    config = load_config(SweepConfig, args.config, args.overrides)
    if args.dry_run:
        text = estimate(config)
        if is_main_process():
            print(text)
        return
    out = run_sweep(config)
    if not is_main_process():
        return
    print(f"results: {out}\ntables:  {write_tables(out)}\nreport:  {build_report(out)}")
    if lines := unreadable(out):
        print(*lines, sep="\n  ", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    run_tool(main)
