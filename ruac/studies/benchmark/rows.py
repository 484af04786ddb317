"""What a benchmark returns, and how its seconds are measured."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_BOUNDS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Row:
    """name: what was done. seconds: CPU time, see `fastest`. ratio: of what to what, each benchmark says. target: of
    the ratio, such as ``<= 0.05``; empty where none is set. note: what else was measured."""

    name: str
    seconds: float
    ratio: float
    target: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        if not self.target:
            return ""
        bound, value = self.target.split()
        return "met" if _BOUNDS[bound](self.ratio, float(value)) else "missed"


def fastest(works: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, float]:
    """Least CPU seconds of each of `works`, which take turns, so that a slow moment of the machine hits all alike.

    CPU time is that of all threads together: ratios mean something with one thread only.
    """
    seconds = dict.fromkeys(works, float("inf"))
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            work()
            seconds[name] = min(seconds[name], time.process_time() - start)
    return seconds


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a table."""
    lines = ["| name | seconds | ratio | target | verdict | note |", "|---|---|---|---|---|---|"]
    cells = ((r.name, f"{r.seconds:.3g}", f"{r.ratio:.3g}", r.target, r.verdict, r.note) for r in rows)
    return "\n".join([*lines, *(f"| {' | '.join(line)} |" for line in cells)])
