"""Train, export and sweep all rows of a plan, then write tables over seeds; a killed queue continues."""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac reproduce nano source=DIR 'domains=[DIR]' --dry-run"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("plan", type=Path, help="name of a config of ours, or YAML of PlanConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--only", action="append", metavar="ROW", help="this row of the plan; may be repeated")
    parser.add_argument("--dry-run", action="store_true", help="say what is finished and what is not")
    args = parser.parse_intermixed_args(argv)

    from ruac.base.assets import named_config
    from ruac.base.config import load_config
    from ruac.base.errors import RuacError
    from ruac.studies.reproduce.plan import PlanConfig
    from ruac.studies.reproduce.queue import run_plan, status
    from ruac.studies.reproduce.summary import write_summary

    plan = load_config(PlanConfig, named_config(args.plan, "reproduce"), args.overrides)
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
