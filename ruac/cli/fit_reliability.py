"""Fit how good a mask is, and which to accept at a chosen risk, on held-out source images."""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac fit-reliability source=DIR@val 'looks=[\"\",zoom]' out=runs/ruac/export"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("--config", type=Path, help="YAML of differences from ReliabilityConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)

    from ruac.base.config import load_config
    from ruac.fitting.reliability import ReliabilityConfig, run_reliability

    print(f"reliability: {run_reliability(load_config(ReliabilityConfig, args.config, args.overrides))}")
