"""Weak and strong views of a picture, and boxes that are pasted between pictures (UniMatch, sec. 3; CutMix)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as colour

from ruac.base.errors import RuacError
from ruac.data.augment import AugmentConfig, augment
from ruac.data.classes import IGNORE


def weak_defaults() -> AugmentConfig:
    """Crop and mirror, no colour and no turning."""
    return AugmentConfig(crop=0.4, rotation=0.0, shear=0.0, brightness=0.0, contrast=0.0, saturation=0.0, grayscale=0.0)


@dataclass
class ViewsConfig:
    """weak: of labelled and unlabelled pictures alike. jitter, grayscale, blur, cutmix: probabilities of the strong
    view's parts, as UniMatch has them. strength: half-widths of the jitter are 0.5 strength (hue: 0.25 strength)."""

    weak: AugmentConfig = field(default_factory=weak_defaults)
    jitter: float = 0.8
    grayscale: float = 0.2
    blur: float = 0.5
    cutmix: float = 0.5
    strength: float = 1.0

    def validate(self) -> None:
        for name in ("jitter", "grayscale", "blur", "cutmix"):
            if not 0 <= getattr(self, name) <= 1:
                raise RuacError(f"views.{name}: {getattr(self, name)}, expected a probability")
        if not 0 <= self.strength <= 2:
            raise RuacError(f"views.strength: {self.strength}, expected a number in [0, 2]")
        if self.weak.closeup:
            raise RuacError("views.weak.closeup: expected 0; there is no object to be close to")


def weak_view(
    image: Tensor, labels: Tensor, classes: int, side: int, config: ViewsConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """image ``[3, H, W]`` in [0, 1] and labels ``uint8 [H, W]`` by one random map to ``[3, side, side]`` and int64
    ``[side, side]``. A pixel of which no class has more than half, or beyond the picture, is `IGNORE`."""
    masks = F.one_hot(torch.where(labels == IGNORE, classes, labels.long()), classes + 1)[..., :classes]
    image, masks = augment(image, masks.permute(2, 0, 1).bool(), side, config.weak, rng)
    return image, torch.where(masks.any(0), masks.float().argmax(0), IGNORE)


def strong_view(image: Tensor, config: ViewsConfig, rng: np.random.Generator) -> Tensor:
    """Colours and sharpness of ``[3, S, S]`` in [0, 1] changed; every pixel stays in its place."""
    draw = rng.uniform(-1, 1, 4) * config.strength
    if rng.random() < config.jitter:
        image = colour.adjust_brightness(image, float(1 + 0.5 * draw[0]))
        image = colour.adjust_contrast(image, float(1 + 0.5 * draw[1]))
        image = colour.adjust_saturation(image, float(1 + 0.5 * draw[2]))
        image = colour.adjust_hue(image, float(np.clip(0.25 * draw[3], -0.5, 0.5)))
    if rng.random() < config.grayscale:
        image = colour.rgb_to_grayscale(image, num_output_channels=3)
    if rng.random() < config.blur:
        sigma = rng.uniform(0.1, 2.0) * image.shape[-1] / 321  # UniMatch's widths belong to crops of 321 pixels
        image = colour.gaussian_blur(image, [2 * int(np.ceil(2 * sigma)) + 1] * 2, [max(sigma, 0.05)] * 2)
    return image.clamp(0, 1)


def cutmix_box(side: int, config: ViewsConfig, rng: np.random.Generator) -> Tensor:
    """``bool [side, side]``, a random box of 2 to 40 % of the area (empty with 1 - cutmix)."""
    box = torch.zeros(side, side, dtype=torch.bool)
    if rng.random() >= config.cutmix:
        return box
    area, ratio = rng.uniform(0.02, 0.4) * side**2, np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
    width, height = (int(np.clip(round(extent), 1, side)) for extent in (np.sqrt(area * ratio), np.sqrt(area / ratio)))
    x, y = int(rng.integers(side - width + 1)), int(rng.integers(side - height + 1))
    box[y : y + height, x : x + width] = True
    return box


def pasted(values: Tensor, box: Tensor) -> Tensor:
    """``[B, ...]`` with the box of each taken from its mirror place in the batch; box ``bool [B, S, S]``."""
    inside = box if values.ndim == box.ndim else box[:, None]
    return torch.where(inside, values.flip(0), values)
