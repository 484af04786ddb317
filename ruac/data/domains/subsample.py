"""Random pictures of a large data set, the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

MOST = 15_000
"""Masks up to which a data set is used whole (SAM paper, app. D.1)."""
ABOUT = 10_000
"""Masks of the sample of a larger one."""


def draw(
    ids: Sequence[str],
    count: Callable[[Iterable[int]], Iterator[int]],
    *,
    most: int = MOST,
    about: int = ABOUT,
    seed: int = 0,
) -> tuple[list[int], bool]:
    """Indices of the pictures to use, ascending, and whether that is a sample.

    All of them if they hold at most `most` masks; else random ones, until they hold `about` or more.
    count: number of masks of each picture that it is asked for, in order and not before it is asked, so
    that no more than about `most` masks of a huge data set are looked at. The order is that of a hash of
    `seed` and the id: it depends neither on the order of `ids` nor on what else the data set holds.
    """
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(f"{seed}:{ids[i]}".encode()).digest())
    total, enough = 0, None
    for position, masks in enumerate(count(order)):
        total += masks
        if enough is None and total >= about:
            enough = position + 1
        if total > most:
            return sorted(order[:enough]), True
    return sorted(order), False
