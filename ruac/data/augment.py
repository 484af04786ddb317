"""Geometric and colour augmentation of an image and its masks together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from kornia.enhance import adjust_brightness_accumulative, adjust_contrast_with_mean_subtraction, adjust_hue
from kornia.enhance import adjust_saturation_with_gray_subtraction as adjust_saturation
from kornia.geometry.transform import warp_affine
from torch import Tensor

from ruac.base.errors import RuacError

# ImageNet statistics, SAM 2's own normalisation.
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


CLOSEUP = (1.2, 3.0)  # sides of the window around an object, in extents of the object, drawn log-uniformly


@dataclass
class AugmentConfig:
    """Ranges of the augmentation (defaults: the paper's, method, sec. 5).

    crop: smallest share of the image's area a random crop keeps (1: none). closeup: probability of cutting around an
    object instead, as a second look does, by a window of `CLOSEUP` times its extent. rotation and shear in
    degrees. brightness, contrast, saturation, hue: half-widths around no change. grayscale:
    probability.
    """

    flip: bool = True
    crop: float = 1.0
    closeup: float = 0.0
    rotation: float = 25.0
    shear: float = 20.0
    brightness: float = 0.1
    contrast: float = 0.03
    saturation: float = 0.03
    hue: float = 0.0
    grayscale: float = 0.05

    def validate(self) -> None:
        if not 0 < self.crop <= 1:
            raise RuacError(f"augment.crop: {self.crop}, expected a share of the area in (0, 1]")
        if not 0 <= self.closeup <= 1:
            raise RuacError(f"augment.closeup: {self.closeup}, expected a probability")
        for name in ("rotation", "shear", "brightness", "contrast", "saturation", "hue", "grayscale"):
            if getattr(self, name) < 0:
                raise RuacError(f"augment.{name}: {getattr(self, name)}, expected at least 0")


def prepare(image: np.ndarray, size: int | tuple[int, int]) -> Tensor:
    """A picture ``uint8 [H, W, 3]`` as every model here sees it: ``float32 [1, 3, h, w]``, normalised.

    size: (h, w), a model's `frame` for this picture, or the side of a square.
    """
    return normalise(resized(to_tensor(image), (size, size) if isinstance(size, int) else size))[None]


def to_tensor(image: np.ndarray) -> Tensor:
    """``uint8 [H, W, 3]`` to ``float32 [3, H, W]`` in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)


def normalise(image: Tensor) -> Tensor:
    """``[..., 3, H, W]`` in [0, 1] to ImageNet statistics."""
    return (image - MEAN.to(image.device)) / STD.to(image.device)


def square(image: Tensor, side: int) -> Tensor:
    """``[3, H, W]`` resized to ``[3, side, side]``."""
    return resized(image, (side, side))


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """``[3, H, W]`` resized to ``[3, h, w]``, bilinear with antialias, as SAM 2 does it."""
    return F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


def augment(
    image: Tensor, masks: Tensor, side: int, config: AugmentConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """One random crop, affine map and colour change, resampled once to the square model input.

    image: ``[3, H, W]`` in [0, 1]. masks: ``bool [K, H, W]``. Returns ``[3, side, side]`` and
    ``bool [K, side, side]``; image and masks share the map. Outside the picture the image repeats
    its border and masks are empty.
    """
    window = _closeup(masks, rng) if config.closeup and rng.random() < config.closeup else None
    matrix = _affine(window or _crop(image.shape[1:], config, rng), side, config, rng)[None]
    size = (side, side)
    # With align_corners the matrix acts on pixel indices in every kornia version; 0.8 shifts it otherwise.
    image = warp_affine(image[None], matrix, size, mode="bilinear", padding_mode="border", align_corners=True)[0]
    soft = warp_affine(masks[None].float(), matrix, size, mode="bilinear", padding_mode="zeros", align_corners=True)
    return _colour(image, config, rng), soft[0] > 0.5


def _crop(shape: tuple[int, int], config: AugmentConfig, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Middle (x, y), width and height of a random crop, in picture pixels."""
    height, width = shape
    share = np.sqrt(rng.uniform(config.crop, 1.0))
    stretch = np.exp(rng.uniform(-1, 1) * min(0.2, -np.log(share)))  # never larger than the picture
    crop_w, crop_h = width * share * stretch, height * share / stretch
    centre_x = width / 2 + rng.uniform(-1, 1) * (width - crop_w) / 2
    centre_y = height / 2 + rng.uniform(-1, 1) * (height - crop_h) / 2
    return centre_x, centre_y, crop_w, crop_h


def _closeup(masks: Tensor, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """The same of a square around the first of ``masks [K, H, W]``, or as much of it as the picture has."""
    height, width = masks.shape[1:]
    rows, columns = (masks[0].any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
    if not len(rows):
        return width / 2, height / 2, width, height
    ends = [(int(place[0]), int(place[-1]) + 1) for place in (columns, rows)]
    side = max(last - first for first, last in ends) * np.exp(rng.uniform(*np.log(CLOSEUP)))
    size = min(side, width), min(side, height)
    middle = []
    for (first, last), extent, whole in zip(ends, size, (width, height), strict=True):
        slack = max(0.0, extent - (last - first)) / 2  # the object may lie anywhere in the window
        place = (first + last) / 2 + rng.uniform(-1, 1) * slack
        middle.append(min(max(place, extent / 2), whole - extent / 2))
    return *middle, *size


def _affine(
    window: tuple[float, float, float, float], side: int, config: AugmentConfig, rng: np.random.Generator
) -> Tensor:
    """Pixel map ``[2, 3]`` from a window of the source picture to the square output."""
    centre_x, centre_y, crop_w, crop_h = window
    angle, shear = np.radians(rng.uniform(-1, 1, 2) * (config.rotation, config.shear))
    mirror = -1.0 if config.flip and rng.random() < 0.5 else 1.0
    centre = np.array([[1, 0, -centre_x], [0, 1, -centre_y], [0, 0, 1]])
    scale = np.diag([mirror * side / crop_w, side / crop_h, 1.0])
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    slant = np.array([[1, np.tan(shear), 0], [0, 1, 0], [0, 0, 1]])
    back = np.array([[1, 0, side / 2], [0, 1, side / 2], [0, 0, 1]])
    pixel = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # pixel index to position
    return torch.from_numpy((np.linalg.inv(pixel) @ back @ slant @ turn @ scale @ centre @ pixel)[:2]).float()


def _colour(image: Tensor, config: AugmentConfig, rng: np.random.Generator) -> Tensor:
    draw = 1 + rng.uniform(-1, 1, 3) * (config.brightness, config.contrast, config.saturation)
    image = adjust_brightness_accumulative(image, float(draw[0]))
    image = adjust_contrast_with_mean_subtraction(image, float(draw[1]))
    saturation = 0.0 if rng.random() < config.grayscale else float(draw[2])
    image = adjust_saturation(image, saturation)
    if config.hue:
        image = adjust_hue(image, float(rng.uniform(-1, 1) * config.hue * 2 * np.pi))
    return image.clamp(0, 1)
