"""A data set in its native format as a `MaskDataset`: opened by name, indexed once, read picture by picture."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ruac.base.errors import RuacError
from ruac.data.domains.card import PROTOCOLS, Card
from ruac.data.domains.picture import Picture
from ruac.data.domains.places import NotThere
from ruac.data.domains.registry import CARDS
from ruac.data.domains.subsample import ABOUT, MOST, draw
from ruac.data.sample import Record, Sample, check_orientation, read_image

BATCH = 64  # pictures indexed at a time, in threads: decoding leaves the interpreter free


@dataclass(frozen=True)
class Found:
    """What opening a data set found. listed: pictures. indexed: pictures looked into, all of them unless the
    set is sampled; the next three count within them. empty: pictures without an object, left out. objects:
    masks. dropped: objects without a pixel, left out. sampled: whether `records` are a random sample."""

    listed: int
    indexed: int
    empty: int
    objects: int
    dropped: int
    sampled: bool


class NativeDataset:
    """The pictures of a `Card` under a protocol; `open_domain` makes it.

    Object ids are known before a picture is read, so opening indexes the objects of every picture that
    may be used. For coded masks that is a look at each code; for maps of object numbers and mask files,
    each file is decoded once, at every opening: nothing is written into the user's folder. A data set of
    more than `most` masks is indexed in a random order until it is known to have so many, and sampled
    (`subsample.draw`). To index only once, convert the data set (ruac prepare-domain).
    """

    def __init__(
        self, card: Card, splits: tuple[str, ...], root: Path, *, most: int, about: int, seed: int, orientation: str
    ):
        check_orientation(orientation)
        self.card, self.splits, self.root, self.seed, self.name = card, splits, root, seed, card.name
        self._orientation = orientation
        listed = sorted((p for split in splits for p in card.pictures(root, split)), key=lambda picture: picture.id)
        ids = [picture.id for picture in listed]
        if len(set(ids)) < len(ids):
            raise RuacError(f"{root}: two images have the id {Counter(ids).most_common(1)[0][0]!r}")
        index: dict[int, tuple[list[str], int]] = {}

        def count(order: Iterable[int]) -> Iterator[int]:
            with ThreadPoolExecutor() as pool:
                while batch := list(islice(order, BATCH)):
                    index.update(zip(batch, pool.map(lambda i: _objects(listed[i], orientation), batch), strict=True))
                    yield from (len(index[i][0]) for i in batch)

        chosen, sampled = draw(ids, lambda order: count(iter(order)), most=most, about=about, seed=seed)
        chosen = [i for i in chosen if index[i][0]]
        self._pictures = [listed[i] for i in chosen]
        self.records = [
            Record(listed[i].id, listed[i].path, tuple(index[i][0]), annotations=listed[i].annotation.files)
            for i in chosen
        ]
        self.found = Found(
            listed=len(listed),
            indexed=len(index),
            empty=sum(not objects for objects, _ in index.values()),
            objects=sum(len(objects) for objects, _ in index.values()),
            dropped=sum(dropped for _, dropped in index.values()),
            sampled=sampled,
        )
        if not self.records:
            raise RuacError(f"{root}: no image with an object in {', '.join(splits)}; expected {card.tree}")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        annotation = self._pictures[index].annotation
        image = read_image(record.path, size=annotation.drawn_on, orientation=self._orientation)
        return Sample(record, image, annotation.masks(record.object_ids, image.shape[:2]))


def open_domain(
    name: str,
    root: str | Path,
    *,
    protocol: str = "ruac",
    split: str | None = None,
    most: int = MOST,
    about: int = ABOUT,
    seed: int = 0,
    orientation: str = "seen",
) -> NativeDataset:
    """Open the native download of a data set.

    name: a key of `CARDS`. root: the folder of the download, one around it, or one of its own folders (a warning then
    names what is read). protocol: "ruac" or "sam1", which choose the splits. split: another one instead. most, about,
    seed: see `subsample.draw`. orientation: one of `ORIENTATIONS`, where sizes in the annotations do not tell.
    Raises `RuacError` for an unknown name and for whatever differs from the card's format, naming the
    file and what was expected.
    """
    if name not in CARDS:
        raise RuacError(f"domain {name!r}: unknown, expected one of: {', '.join(CARDS)}")
    if protocol not in PROTOCOLS:
        raise RuacError(f"protocol: {protocol!r}, expected one of: {', '.join(PROTOCOLS)}")
    root = Path(root)
    if not root.is_dir():
        raise RuacError(f"{root}: folder not found; expected {CARDS[name].title}: {CARDS[name].tree}")
    splits = CARDS[name].splits[protocol] if split is None else (split,)
    root, options = root.resolve(), {"most": most, "about": about, "seed": seed, "orientation": orientation}
    try:
        return NativeDataset(CARDS[name], splits, root, **options)
    except NotThere:
        for around in root.parents[:2]:
            with suppress(RuacError):
                dataset = NativeDataset(CARDS[name], splits, around, **options)
                if any(
                    root in file.parents for record in dataset.records for file in (record.path, *record.annotations)
                ):
                    warnings.warn(f"{root}: is a part of {CARDS[name].title}, read from {around}", stacklevel=2)
                    return dataset
        raise


def _objects(picture: Picture, orientation: str) -> tuple[list[str], int]:
    return picture.annotation.object_ids(picture.path, orientation)
