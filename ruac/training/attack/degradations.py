"""Degradations with reach: what weather, optics and sensors do to a picture, as differentiable functions (ours).

A style at the paper's budget moves features a tenth as far as a real domain does (method, sec. 7). These reach it. They
act on light in [0, 1], in the order in which light meets them: colour matrix, contrast, haze, blur, tone curve, noise.
Every one of them is a change that vanishes with its parameter, so that a residual of zero leaves a picture bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn

from ruac.base.errors import RuacError
from ruac.data.augment import MEAN, STD
from ruac.training.attack.regions import region_features, spread, style_regions
from ruac.training.attack.reversal import reverse_gradient

PARTS = {"colour": 9, "contrast": 1, "haze": 1, "air": 3, "blur": 1, "tone": 1, "noise": 1}
"""Numbers in a residual, all in [-1, 1]. Of haze, blur and noise, which have no opposite, the magnitude counts."""
DEGRADATION_DIM = sum(PARTS.values())

AIR, AIR_SPREAD = 0.8, 0.2  # light of the haze, and how far a channel of it may be from that
LEVELS = (0.25, 0.5, 0.75, 1.0)  # shares of the largest blur at which a picture is blurred, the rest lies between
BLACK = 1 / 255  # the tone curve does not tell darker values apart


@dataclass
class DegradationConfig:
    """The most that every degradation does, 0 for none of it; light in [0, 1].

    colour: an entry of the colour matrix less the identity. contrast: change of the gain about the picture's mean.
    haze: optical depth. blur: standard deviation as a share of the picture's side. tone: logarithm of the gamma.
    noise: standard deviation. object_share: weight of what a region asks for beside what the whole picture does;
    their sum is bounded. hidden: width of the networks. init_std: of their last weights.
    """

    colour: float = 0.15
    contrast: float = 0.25
    haze: float = 0.75
    blur: float = 0.006
    tone: float = 0.35
    noise: float = 0.05
    object_share: float = 0.3
    hidden: int = 128
    init_std: float = 0.01

    def validate(self) -> None:
        for key in ("colour", "contrast", "haze", "blur", "tone", "noise", "object_share", "init_std"):
            if getattr(self, key) < 0:
                raise RuacError(f"degradations.{key}: expected a value >= 0, found {getattr(self, key)}")
        if self.contrast >= 1:
            raise RuacError(f"degradations.contrast: expected a value below 1, found {self.contrast}")
        if self.blur > 0.1:
            raise RuacError(f"degradations.blur: expected a share of the side up to 0.1, found {self.blur}")
        if self.hidden < 1:
            raise RuacError(f"degradations.hidden: expected at least 1, found {self.hidden}")


def degrade(images: Tensor, regions: Tensor, residual: Tensor, config: DegradationConfig) -> Tensor:
    """Degrade every region by its own amounts. Returns images ``[B, 3, S, S]``, ImageNet-normalised as the given ones.

    regions: ``[B, R, S, S]`` in {0, 1}. residual: ``[B, R, DEGRADATION_DIM]`` in [-1, 1], in the order of `PARTS`.
    Where regions overlap their amounts are averaged. No value leaves what a screen can show, unless it was beyond
    already. The noise is drawn by torch's generator, its level is differentiable.
    """
    mean, std = MEAN.to(images), STD.to(images)
    amounts = spread(residual, regions).split(list(PARTS.values()), dim=1)  # [B, n, S, S] each
    at = dict(zip(PARTS, amounts, strict=True))
    before = light = images * std + mean
    if config.colour:
        matrix = config.colour * at["colour"].unflatten(1, (3, 3))
        light = light + (matrix * light[:, None]).sum(2)
    if config.contrast:
        middle = light.mean((1, 2, 3), keepdim=True)
        light = light + config.contrast * at["contrast"] * (light - middle)
    if config.haze:  # Koschmieder's law at one depth per region
        opaque = -torch.expm1(-config.haze * at["haze"].abs())
        light = light + opaque * (AIR + AIR_SPREAD * at["air"] - light)
    if config.blur:
        largest = config.blur * images.shape[-1]
        light = blurred(light, largest**2 * at["blur"].abs(), largest)
    if config.tone:  # c^gamma - c, exactly 0 at gamma 1
        visible = light.clamp(BLACK, 1)
        light = light + visible * torch.expm1(torch.expm1(config.tone * at["tone"]) * visible.log())
    if config.noise:
        light = light + config.noise * at["noise"].abs() * torch.randn_like(light)
    changed = images + (light - before) / std
    black, white = -mean / std, (1 - mean) / std
    return changed.maximum(images.minimum(black)).minimum(images.maximum(white))


def blurred(light: Tensor, variance: Tensor, largest: float) -> Tensor:
    """``[B, 3, S, S]`` blurred by a Gaussian of ``variance [B, 1, S, S]`` (square pixels) at every pixel.

    largest: standard deviation in pixels that no variance exceeds. Between levels of one Gaussian each, pictures are
    mixed so that the kernel's variance is what was asked for: differentiable, also at no blur, and the cost does not
    depend on the number of regions.
    """
    sharper, reached, result = light, 0.0, light
    for share in LEVELS:
        sigma = share * largest
        side = 2 * min(math.ceil(3 * sigma), light.shape[-1] - 1) + 1
        level = gaussian_blur2d(light, (side, side), (sigma, sigma))
        weight = ((variance - reached) / (sigma**2 - reached)).clamp(0, 1)
        result = result + weight * (level - sharper)
        sharper, reached = level, sigma**2
    return result


class DegradationAttacker(nn.Module):
    """Predicts amounts for every picture, and for every object and the background beside it, from clean features.

    The bounded sum ``tanh(picture + object_share region)`` is learned behind gradient reversal. What the whole picture
    shares leads: a degradation of one object alone would draw its contour.
    """

    def __init__(self, config: DegradationConfig, *, feature_dim: int = 256):
        super().__init__()
        self.config = config
        self.picture = self._net(feature_dim)
        self.region = self._net(feature_dim)

    def _net(self, feature_dim: int) -> nn.Sequential:
        hidden = self.config.hidden
        net = nn.Sequential(
            nn.Linear(feature_dim, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, DEGRADATION_DIM)
        )
        nn.init.normal_(net[-1].weight, std=self.config.init_std)
        nn.init.zeros_(net[-1].bias)
        return net

    def residual(self, embedding: Tensor, regions: Tensor) -> Tensor:
        """``[B, D, s, s], [B, R, S, S] -> [B, R, DEGRADATION_DIM]`` in (-1, 1)."""
        asked = self.picture(embedding.mean((2, 3)))[:, None]  # [B, 1, .]
        return torch.tanh(asked + self.config.object_share * self.region(region_features(embedding, regions)))

    def forward(self, images: Tensor, embedding: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
        """Attacked images ``[B, 3, S, S]``; arguments as in `StyleAttacker.forward`, float32 also under autocast."""
        with torch.autocast(images.device.type, enabled=False):
            regions = style_regions(masks.to(images.dtype), valid, "multi_background")
            residual = self.residual(embedding.detach().to(images.dtype), regions)
            return degrade(images, regions, reverse_gradient(residual), self.config)


class RandomDegradation(nn.Module):
    """The control for `DegradationAttacker`: amounts drawn uniformly within the same bound, nothing learned."""

    def __init__(self, config: DegradationConfig):
        super().__init__()
        self.config = config

    def forward(self, images: Tensor, embedding: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
        """Attacked images ``[B, 3, S, S]``; arguments as in `StyleAttacker`, `embedding` is not looked at."""
        with torch.autocast(images.device.type, enabled=False):
            regions = style_regions(masks.to(images.dtype), valid, "multi_background")
            batch, count = regions.shape[:2]
            picture, region = (
                2 * torch.rand(batch, n, DEGRADATION_DIM, device=images.device, dtype=images.dtype) - 1
                for n in (1, count)
            )
            residual = (picture + self.config.object_share * region).clamp(-1, 1)
            return degrade(images, regions, residual, self.config)
