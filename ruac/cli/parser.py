"""What the parsers of all verbs have in common."""

from __future__ import annotations

import argparse


def verb_parser(description: str | None, example: str, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help ends with an example. prog: the name to show, that of the running script by default."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
