"""What is known of a data set, and how to list its pictures: one `Card` per data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ruac.data.domains.picture import Picture

GROUPS = ("Objects", "Scenes", "Scientific", "Egocentric", "Source")
PROTOCOLS = ("ruac", "sam1")
MEMORY = "memory"


@dataclass(frozen=True)
class Card:
    """One data set in its native format.

    name: as users write it. title: the data set's own name. page: official page, "" where none could be
    confirmed. tree: the files that are read, below the root. rule: what counts as an object. splits: per
    protocol, the splits that `pictures` is asked for. sam: images and masks of the SAM paper (app. D.1),
    None for sets that it does not use. verified: `MEMORY`, or where the format was read. pictures:
    ``(root, split) -> pictures``, which lists files and reads no masks; raises `RuacError` for another tree.
    """

    name: str
    title: str
    group: str
    page: str
    licence: str
    size: str
    version: str
    tree: str
    rule: str
    splits: dict[str, tuple[str, ...]]
    sam: tuple[int, int] | None
    verified: str
    pictures: Callable[[Path, str], Iterable[Picture]]


def both(*splits: str) -> dict[str, tuple[str, ...]]:
    """The same splits in every protocol."""
    return dict.fromkeys(PROTOCOLS, splits)
