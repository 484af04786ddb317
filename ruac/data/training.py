"""Training batches: any sample number is reproducible on its own, so resuming needs no state."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ruac.base.errors import RuacError
from ruac.data.augment import AugmentConfig, augment, normalise, to_tensor
from ruac.data.sample import MaskDataset, check_orientation

_TRIES = 100


@dataclass
class TrainingDataConfig:
    """objects: masks drawn per image (K). balance: exponent of an origin's image count in the
    sampling weight (1: by image, 0.5: square root, 0: all origins alike). min_pixels: smaller
    masks (after augmentation, at the model's resolution) are not used. orientation: what the source's annotations were
    made on where their sizes do not tell, see `ORIENTATIONS`."""

    objects: int = 3
    balance: float = 0.5
    min_pixels: int = 16
    orientation: str = "seen"
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def validate(self) -> None:
        if self.objects < 1:
            raise RuacError(f"data.objects: {self.objects}, expected at least 1")
        check_orientation(self.orientation)
        if self.min_pixels < 1:
            raise RuacError(f"data.min_pixels: {self.min_pixels}, expected at least 1")
        if not 0 <= self.balance <= 1:
            raise RuacError(f"data.balance: {self.balance}, expected a number in [0, 1]")


class TrainingSet(Dataset):
    """An endless, numbered stream of augmented samples.

    Sample n is a function of (seed, n) alone. Item: ``image [3, S, S]`` normalised, ``masks bool
    [K, S, S]``, ``valid bool [K]`` (at least one true).
    """

    def __init__(self, dataset: MaskDataset, config: TrainingDataConfig, *, side: int, seed: int, length: int):
        self.dataset, self.config, self.side, self.seed, self.length = dataset, config, side, seed, length
        origins, inverse, counts = np.unique(
            [record.origin for record in dataset.records], return_inverse=True, return_counts=True
        )
        weight = counts.astype(float) ** (config.balance - 1)  # per image of that origin
        self._cumulative = np.cumsum(weight[inverse] / weight[inverse].sum())
        self.origins = list(origins)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, number])
        for _ in range(_TRIES):  # a crop may miss every object; then draw again
            pick = min(int(np.searchsorted(self._cumulative, rng.random())), len(self.dataset) - 1)
            sample = self.dataset[pick]
            order = torch.from_numpy(rng.permutation(len(sample.masks)))
            image, masks = augment(
                to_tensor(sample.image), torch.from_numpy(sample.masks)[order], self.side, self.config.augment, rng
            )
            masks = masks[masks.flatten(1).sum(dim=1) >= self.config.min_pixels][: self.config.objects]
            if len(masks):
                break
        else:
            raise RuacError(
                f"{self.dataset.name}: no object of data.min_pixels={self.config.min_pixels} in {_TRIES} draws"
            )
        padded = torch.zeros(self.config.objects, self.side, self.side, dtype=torch.bool)
        padded[: len(masks)] = masks
        valid = torch.arange(self.config.objects) < len(masks)
        return {"image": normalise(image), "masks": padded, "valid": valid}
