"""Train, export, sweep, predict and report on the embedded default, or on folders of your own."""

from __future__ import annotations

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac quickstart source=DIR 'domains=[DIR,DIR]' out=runs/quickstart"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields of QuickstartConfig")
    args = parser.parse_args(argv)

    from ruac.base.config import load_config
    from ruac.studies.quickstart import QuickstartConfig, run_quickstart

    run_quickstart(load_config(QuickstartConfig, None, args.overrides))
