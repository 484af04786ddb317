"""User errors: one line that names the file, key or index and says what was expected."""

import sys
from collections.abc import Callable


class RuacError(Exception):
    """Bad input from a user. Entry scripts print it on one line and exit with status 2."""


def run_tool(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Run an entry script's ``main``; a `RuacError` becomes ``error: ...`` and exit status 2."""
    try:
        main(sys.argv[1:] if argv is None else argv)
    except RuacError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
