"""What a benchmark returns, and how its seconds are measured."""

from __future__ import annotations

import operator
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    def spread(self) -> float | None:
        """How much longer the median turn took, as a share; None where no turns were taken."""
        return getattr(self.seconds, "spread", None)

    @property
    def verdict(self) -> str:
        if not self.target:
            return ""
        bound, value = self.target.split()
        return "met" if _BOUNDS[bound](self.ratio, float(value)) else "missed"


class Least(float):
    """The least of several times; spread: how much more their median was, as a share."""

    def __init__(self, times: Sequence[float]):
        self.times = tuple(times)

    def __new__(cls, times: Sequence[float]) -> Least:
        return super().__new__(cls, min(times))

    def __reduce__(self) -> tuple[type[Least], tuple[tuple[float, ...]]]:
        return Least, (self.times,)  # from a process of its own it comes back as what it was

    @property
    def spread(self) -> float:
        return statistics.median(self.times) / self - 1 if self > 0 else 0.0


def fastest(works: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, Least]:
    """Least CPU seconds of each of `works`, which take turns, so that a slow moment of the machine hits all alike.

    CPU time is that of all threads together: ratios mean something with one thread only.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            work()
            seconds[name].append(time.process_time() - start)
    return {name: Least(times) for name, times in seconds.items()}


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a table."""
    lines = ["| name | seconds | spread | ratio | target | verdict | note |", "|---|---|---|---|---|---|---|"]
    cells = (
        (r.name, f"{r.seconds:.3g}", spread, f"{r.ratio:.3g}", r.target, r.verdict, r.note)
        for r in rows
        for spread in ["" if r.spread is None else f"{r.spread:.0%}"]
    )
    return "\n".join([*lines, *(f"| {' | '.join(line)} |" for line in cells)])
