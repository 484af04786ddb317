"""Which pictures have labels, which do not, and which a student is judged on: whole pictures, drawn by a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ruac.base.errors import RuacError
from ruac.data.classes import ClassFolder


@dataclass
class SplitConfig:
    """labelled, unlabelled, validation: lists of pictures, names of ``NAME.txt`` in the source or paths; or drawn.

    held_out: share of all pictures for validation, drawn by `validation_seed`. fraction: share of all other pictures
    that keep their labels, drawn by `seed`; a smaller fraction is a part of a larger one. Without `unlabelled`, all
    pictures that are neither labelled nor for validation.
    """

    labelled: str | None = None
    unlabelled: str | None = None
    validation: str | None = None
    fraction: float = 0.125
    held_out: float = 0.3
    seed: int = 0
    validation_seed: int = 0

    def validate(self) -> None:
        if not 0 < self.fraction <= 1:
            raise RuacError(f"split.fraction: {self.fraction}, expected a share in (0, 1]")
        if not 0 < self.held_out < 1:
            raise RuacError(f"split.held_out: {self.held_out}, expected a share in (0, 1)")
        if self.seed < 0 or self.validation_seed < 0:
            raise RuacError("split: seeds expected to be at least 0")


@dataclass(frozen=True)
class Split:
    """Places of pictures in a `ClassFolder`, in rising order."""

    labelled: list[int]
    unlabelled: list[int]
    validation: list[int]

    def files(self, dataset: ClassFolder) -> dict[str, list[str]]:
        return {name: [dataset.files[place] for place in places] for name, places in vars(self).items()}


def split_pictures(dataset: ClassFolder, config: SplitConfig) -> Split:
    """Raises `RuacError` for a picture in two lists, one without labels where they are needed, or an empty part."""
    every = [place for place in range(len(dataset)) if dataset.has_truth(place)]
    if config.validation is not None:
        validation = dataset.places(config.validation)
    else:
        order = np.random.default_rng([config.validation_seed, 0]).permutation(every)
        validation = sorted(order[: max(1, round(config.held_out * len(every)))].tolist())
    if config.labelled is not None:
        labelled = dataset.places(config.labelled)
    else:
        left = [place for place in every if place not in set(validation)]
        count = round(config.fraction * len(left))
        if not count:
            raise RuacError(
                f"split.fraction: {config.fraction} of {len(left)} pictures is none; expected at least "
                f"{1 / max(1, len(left)):.3f}"
            )
        labelled = sorted(np.random.default_rng([config.seed, 1]).permutation(left)[:count].tolist())
    taken = set(labelled) | set(validation)
    if config.unlabelled is not None:
        unlabelled = dataset.places(config.unlabelled)
    else:
        unlabelled = [place for place in range(len(dataset)) if place not in taken]
    for one, other in ((labelled, validation), (labelled, unlabelled), (unlabelled, validation)):
        if common := sorted(set(one) & set(other)):
            raise RuacError(f"split: {dataset.files[common[0]]} is in two of labelled, unlabelled and validation")
    for name, places in (("labelled", labelled), ("validation", validation)):
        if without := [place for place in places if not dataset.has_truth(place)]:
            raise RuacError(f"{dataset.path(without[0])}: has no labels, but is in split.{name}")
    return Split(labelled, unlabelled, validation)


def check_truth(dataset: ClassFolder, split: Split) -> None:
    """Read all labels that a run will need, before it starts.

    Raises `RuacError` for labels outside the classes or of another size than their picture, and for a class on none
    of the labelled pictures: it could never be learnt."""
    left = set(range(len(dataset.names)))
    for place in split.labelled:
        left -= set(np.unique(dataset.labels(place)).tolist())
    for place in split.validation:
        dataset.labels(place)
    if left:
        raise RuacError(
            f"labelled subset: class {dataset.names[min(left)]!r} is on none of its {len(split.labelled)} pictures; "
            f"expected a larger split.fraction or another split.seed"
        )
