"""How long a visitor of the demo waits for an answer, with `nano`."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ruac.demo.answer import Models, Shown
from ruac.demo.draw import draw
from ruac.demo.gallery import PICTURES, picture
from ruac.demo.session import Session
from ruac.demo.words import summary
from ruac.studies.benchmark.rows import Row

LIMIT = 1.0  # seconds, from a click to pictures and words


def run(*, threads: int, repeats: int) -> list[Row]:
    """A first click on a picture, which is encoded for it, a later one, and one with a second look.

    Seconds of the clock, drawing included, the median of `repeats`; ratio: to `LIMIT`. What a browser adds, sending
    and showing two pictures, is not in it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _rows(repeats)
    finally:
        torch.set_num_threads(before)


def _rows(repeats: int) -> list[Row]:
    image = picture(next(iter(PICTURES)))
    first = Session().showing(image).clicked(190, 200, 1)
    later = first.clicked(60, 60, 0)
    warm = Models("cpu")
    for look in (False, True):
        _whole(warm, later.set_to(look=look))
    works = {
        "first click, picture encoded": lambda number: _whole(warm, _other(number).clicked(190, 200, 1)),
        "later click": lambda number: _whole(warm, later.clicked(10 + number, 300, 0)),
        "later click, second look": lambda number: _whole(warm, later.set_to(look=True).clicked(9 + number, 9, 0)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats):
        for name, work in works.items():
            seconds[name].append(_timed(work, number))
    medians = {name: sorted(values)[len(values) // 2] for name, values in seconds.items()}
    return [Row(f"demo: {name}", value, value / LIMIT, "<= 1.0") for name, value in medians.items()]


def _other(number: int) -> Session:
    """A picture that has not been encoded before."""
    changed = picture(next(iter(PICTURES))).copy()
    changed[0, 0] = number
    return Session().showing(changed)


def _whole(models: Models, session: Session) -> Shown | None:
    shown = models.ask(session)
    draw(session, shown)
    summary(session, shown)
    return shown


def _timed(work: Callable[[int], object], number: int) -> float:
    start = time.perf_counter()
    work(number)
    return time.perf_counter() - start
