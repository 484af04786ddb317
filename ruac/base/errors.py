"""User errors: one line that names the file, key or index and says what was expected."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST = 4000  # characters of a message: what it quotes may be as large as a file
QUOTED = 300  # characters of what a library says; some of them quote a whole file


class RuacError(Exception):
    """Bad input from a user. Entry scripts print it on one line and exit with status 2.

    A long message loses its middle: its beginning names the source, its end often says what was expected."""

    def __init__(self, message: object = "") -> None:
        text = _own_message(str(message))
        if len(text) > MOST:
            text = f"{text[: MOST * 3 // 4]} [...] {text[-MOST // 5 :]}"
        super().__init__(text)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def brief(error: BaseException) -> str:
    """What an error of a library says, on one line and no longer than `QUOTED`; its type where it says nothing."""
    return one_line(error)[:QUOTED] or type(error).__name__


@contextmanager
def keys_of(where: object) -> Iterator[None]:
    """Turn the errors of taking what a file says apart into a `RuacError` that begins with `where`."""
    try:
        yield
    except KeyError as error:
        raise RuacError(f"{where}: key {error.args[0]!r} is missing") from error
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise RuacError(f"{where}: not as expected: {brief(error)}") from error


def _own_message(text: str) -> str:
    """What a worker process said: torch raises its error again with the whole traceback as the message."""
    _, raised, message = text.rpartition(f"{RuacError.__module__}.{RuacError.__qualname__}: ")
    return message.strip() if raised and "Traceback" in text else text


def _at_home(argument: str) -> str:
    """``~/x`` and ``--out=~/x``, which not every shell replaces; `load_config` sees to ``key=~/x``."""
    option, separator, value = argument.partition("=")
    if argument.startswith("--") and separator:
        return f"{option}={_at_home(value)}"
    return os.path.expanduser(argument) if argument.startswith("~/") else argument


def run_tool(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Run an entry script's ``main``; a `RuacError` becomes ``error: ...`` and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files and bars may hold what a console cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        main([_at_home(argument) for argument in (sys.argv[1:] if argv is None else argv)])
    except RuacError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # whoever read the output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
