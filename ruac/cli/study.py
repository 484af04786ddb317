"""Study models x calibrations x domains: fits, sweeps, and the figures of a study of reliability.

A killed study continues. What the figures show: docs/reliability_study.md.
"""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac study 'models=[{name: nano, backbone: nano}]' source=DIR@val 'domains=[DIR]' limit=4 out=runs/study"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("--config", type=Path, help="YAML of differences from StudyConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--dry-run", action="store_true", help="say which steps are done and which are not")
    args = parser.parse_intermixed_args(argv)

    from ruac.base.config import load_config
    from ruac.studies.reliability_study.config import StudyConfig
    from ruac.studies.reliability_study.run import run_study, status

    config = load_config(StudyConfig, args.config, args.overrides)
    if args.dry_run:
        print("\n".join(status(config)))
        return
    folder, lost = run_study(config)
    print(f"study: {folder / 'index.md'}")
    if lost:
        print(*lost, sep="\n")
        raise SystemExit(1)
