"""What the parsers of all verbs have in common: help that ends with an example, and completion in a shell."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable

ASKED = "_ARGCOMPLETE"  # set by the shell's side of argcomplete where it asks instead of running


class VerbParser(argparse.ArgumentParser):
    """Answers the shell where that asks what may come next; otherwise argparse's own."""

    def parse_args(self, args=None, namespace=None):
        if ASKED in os.environ:
            import argcomplete

            argcomplete.autocomplete(self)  # ends the process
        return super().parse_args(args, namespace)


def verb_parser(description: str | None, example: str, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help ends with an example. prog: the name to show, that of the running script by default."""
    return VerbParser(
        prog=prog,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def complete(verbs: Iterable[str], run: Callable[[str], None]) -> None:
    """Answer the shell's question on ``ruac ...``: a verb, or what its parser takes. run: starts a verb's parser.

    The words so far are in the environment, not among the arguments. Without argcomplete there is no answer.
    """
    line, place = os.environ.get("COMP_LINE", ""), int(os.environ.get("COMP_POINT", 0))
    words = line.encode()[:place].decode(errors="ignore").split(" ")
    _, *rest = [word for place, word in enumerate(words) if word or place == len(words) - 1]
    try:
        import argcomplete
    except ImportError:
        return
    if len(rest) > 1 and rest[0] in verbs:
        os.environ[ASKED] = "2"  # words before the second are no arguments of this parser
        return run(rest[0])
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=list(verbs))
    argcomplete.autocomplete(parser)
