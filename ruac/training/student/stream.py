"""The numbered stream of a student: item n is a labelled picture and an unlabelled one, a function of (seed, n)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from ruac.base.errors import RuacError, keys_of
from ruac.base.files import read_json
from ruac.conformal.pixel_scores import check_labels
from ruac.data.augment import normalise, resized, to_tensor
from ruac.data.classes import IGNORE, ClassFolder
from ruac.data.id_masks import check_size, read_ids
from ruac.data.sample import read_list
from ruac.training.engine import STREAM_LENGTH
from ruac.training.student.split import Split
from ruac.training.student.views import ViewsConfig, cutmix_box, strong_view, weak_view

KEPT = 256
"""Pictures that stay decoded, resized, in each worker's memory (at side 512 some 0.6 GB)."""
STORED = 1.5
"""Side of what is kept, in sides of the model: a crop of 0.4 of the area keeps about the model's resolution."""


class StudentStream(Dataset):
    """Items: ``image [3, S, S]`` normalised and ``labels int64 [S, S]`` of a labelled picture, `IGNORE` where unknown;
    and of an unlabelled one ``weak``, ``pseudo`` (its pseudo-labels, `IGNORE` without any) and, with `strong` views,
    ``strong1``, ``box1``, ... Every picture comes once in each round of its own list.

    unlabelled: whether items have an unlabelled picture. pseudo: folder of pseudo-labels, ``STEM.png``.
    """

    def __init__(
        self,
        dataset: ClassFolder,
        split: Split,
        config: ViewsConfig,
        *,
        side: int,
        seed: int,
        unlabelled: bool,
        strong: int = 0,
        pseudo: Path | None = None,
    ):
        self.dataset, self.split, self.config, self.side, self.seed = dataset, split, config, side, seed
        self.unlabelled, self.strong, self.pseudo = unlabelled, strong, pseudo
        self._kept = lru_cache(KEPT)(self._read)

    def __getstate__(self) -> dict:  # for workers that are spawned
        return {name: value for name, value in vars(self).items() if name != "_kept"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._kept = lru_cache(KEPT)(self._read)

    def __len__(self) -> int:
        return STREAM_LENGTH

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, number])
        image, labels = self._weak(self._place(self.split.labelled, number, 0), False, rng)
        item = {"image": normalise(image), "labels": labels}
        if not self.unlabelled:
            return item
        weak, pseudo = self._weak(self._place(self.split.unlabelled, number, 1), True, rng)
        item |= {"weak": normalise(weak), "pseudo": pseudo}
        for view in range(1, self.strong + 1):
            item[f"strong{view}"] = normalise(strong_view(weak, self.config, rng))
            item[f"box{view}"] = cutmix_box(self.side, self.config, rng)
        return item

    def _place(self, places: list[int], number: int, kind: int) -> int:
        rounds, position = divmod(number, len(places))
        return places[_order(self.seed, kind, rounds, len(places))[position]]

    def _weak(self, place: int, is_unlabelled: bool, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        image, labels = self._kept(place, is_unlabelled)
        return weak_view(image.float() / 255, labels, len(self.dataset.names), self.side, self.config, rng)

    def _read(self, place: int, is_unlabelled: bool) -> tuple[Tensor, Tensor]:
        """Picture ``uint8 [3, T, T]`` and labels ``uint8 [T, T]``."""
        picture = self.dataset.image(place)
        if not is_unlabelled:
            labels = self.dataset.labels(place)
        elif self.pseudo is None:
            labels = np.full(picture.shape[:2], IGNORE, np.uint8)
        else:
            path = self.pseudo / f"{Path(self.dataset.files[place]).stem}.png"
            labels = read_ids(path)
            check_size(labels, picture.shape[:2], path, self.dataset.path(place))
            check_labels(labels, self.dataset.names, str(path))
        side = round(STORED * self.side)
        image = resized(to_tensor(picture), (side, side)).clamp(0, 1).mul(255).round().byte()
        known = torch.from_numpy(labels.astype(np.uint8))[None, None]
        return image, F.interpolate(known, (side, side), mode="nearest-exact")[0, 0]


@lru_cache(4)
def _order(seed: int, kind: int, rounds: int, count: int) -> list[int]:
    return np.random.default_rng([seed, kind, rounds]).permutation(count).tolist()


def check_pseudo(folder: Path, dataset: ClassFolder, split: Split) -> dict:
    """The record of a finished ``ruac pseudo-label`` that fits this split.

    Raises `RuacError` where it is not finished, has other classes, lacks a picture, or was calibrated on pictures that
    are not in this run's labelled subset, as their labels would be known twice or judged on what they calibrated.
    """
    record_path = folder / "record.json"
    record = read_json(record_path, "not found; expected the folder of a finished ruac pseudo-label")
    with keys_of(f"{record_path}: no record of ruac pseudo-label"):
        calibrated = set(record["labelled"])
    if (names := read_list(folder / "classes.txt")) != dataset.names:
        raise RuacError(f"{folder / 'classes.txt'}: {', '.join(names)}; expected {', '.join(dataset.names)}")
    known = {dataset.files[place] for place in split.labelled}
    if others := sorted(calibrated - known, key=str):
        raise RuacError(
            f"{record_path}: calibrated on {others[0]}, which is not in the labelled subset; give "
            f"ruac pseudo-label the labelled.txt of this split"
        )
    for place in split.unlabelled:
        if not (path := folder / "labels" / f"{Path(dataset.files[place]).stem}.png").is_file():
            raise RuacError(f"{path}: not found; every unlabelled picture needs pseudo-labels")
    return record
