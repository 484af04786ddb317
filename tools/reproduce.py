"""Train, export and sweep all rows of a plan, then write tables over seeds; a killed queue continues.

tools/reproduce.py configs/reproduce/nano.yaml source=DIR 'domains=[DIR]' [--only ROW ...] [--dry-run]
"""

import argparse
from pathlib import Path

from ruac.base.config import load_config
from ruac.base.errors import RuacError, run_tool
from ruac.studies.reproduce.plan import PlanConfig
from ruac.studies.reproduce.queue import run_plan, status
from ruac.studies.reproduce.summary import write_summary


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="YAML of PlanConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--only", action="append", metavar="ROW", help="this row of the plan; may be repeated")
    parser.add_argument("--dry-run", action="store_true", help="say what is finished and what is not")
    args = parser.parse_intermixed_args(argv)
    plan = load_config(PlanConfig, args.plan, args.overrides)
    if args.dry_run:
        print("\n".join(status(plan, only=args.only)))
        return
    failures = run_plan(plan, only=args.only)
    try:
        print(f"summary: {write_summary(plan)}")
    except RuacError as error:
        failures.append(f"summary: {error}")
    if failures:
        print(f"{len(failures)} failed:", *failures, sep="\n  ")
        raise SystemExit(1)


if __name__ == "__main__":
    run_tool(main)
