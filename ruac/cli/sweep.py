"""Zero-shot evaluation over many domains.

Exit status 1 says that images could not be read; they are listed, and a rerun tries them again.
"""

from __future__ import annotations

import sys

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac sweep domains 'domains=[DIR]' 'models=[{name: ruac, export: runs/ruac/export}]' out=runs/sweep"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("config", help="name of a config of ours, or YAML of differences from SweepConfig")
    parser.add_argument(
        "overrides", nargs="*", help="key=value, such as limit=20 for the first 20 images of each domain"
    )
    parser.add_argument("--dry-run", action="store_true", help="count, estimate time and disk space, and write nothing")
    args = parser.parse_intermixed_args(argv)

    from ruac.base.assets import named_config
    from ruac.base.config import load_config
    from ruac.evaluation.report import build_report
    from ruac.evaluation.report.table import write_tables
    from ruac.evaluation.sweep.config import SweepConfig
    from ruac.evaluation.sweep.estimate import estimate
    from ruac.evaluation.sweep.results import unreadable
    from ruac.evaluation.sweep.runner import is_main_process, run_sweep

    config = load_config(SweepConfig, named_config(args.config, "sweep"), args.overrides)
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
