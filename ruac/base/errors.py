"""User errors: one line that names the file, key or index and says what was expected."""

import sys
from collections.abc import Callable


class RuacError(Exception):
    """Bad input from a user. Entry scripts print it on one line and exit with status 2."""


def one_line(error: BaseException) -> str:
    """The message alone, also of an error that a worker process raised: torch hands those on with their traceback."""
    text = str(error)
    _, raised, message = text.rpartition(f"{RuacError.__module__}.{RuacError.__qualname__}: ")
    return " ".join((message if raised and "Traceback" in text else text).split())


def run_tool(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Run an entry script's ``main``; a `RuacError` becomes ``error: ...`` and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files and bars may hold what a console cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        main(sys.argv[1:] if argv is None else argv)
    except RuacError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
