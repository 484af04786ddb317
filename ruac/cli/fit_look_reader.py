"""Fit the reader of a second look on source images, clean and under stress."""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac fit-look-reader source=DIR split=train backbone=nano out=runs/reader"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("--config", type=Path, help="YAML of differences from LookReaderFitConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)

    from ruac.base.config import load_config
    from ruac.fitting.look_reader import LookReaderFitConfig, run_look_reader_fit

    print(f"export: {run_look_reader_fit(load_config(LookReaderFitConfig, args.config, args.overrides))}")
