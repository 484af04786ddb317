"""Style attacks on feature maps instead of images: MixStyle and DSU, baselines without parameters.

Both read the style of a feature map as the mean and standard deviation of its channels over space, and replace them
by others that the batch makes plausible. Statistics carry no gradient. Every image is attacked with probability p.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

EPSILON = 1e-6


class FeatureStyle(nn.Module, ABC):
    """What both share; they differ in the new statistics.

    probability: of an image to be attacked, at all its levels.
    """

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Attack the levels ``[B, C, h, w]`` of B images, whose sizes and channels may differ; float32 inside."""
        count, device = len(maps[0]), maps[0].device
        attacked = torch.rand(count, 1, 1, 1, device=device) < self.probability
        draw = self.draw(count, device)
        restyled = []
        for level in maps:
            with torch.autocast(device.type, enabled=False):
                values = level.float()
                mean, std = (x.detach() for x in statistics(values))
                new_mean, new_std = self.restyled(mean, std, draw)
                changed = (values - mean) / std * new_std + new_mean
            restyled.append(torch.where(attacked, changed.to(level.dtype), level))
        return restyled

    def draw(self, count: int, device: torch.device) -> tuple[Tensor, ...]:
        """What is random and the same at all levels of an image."""
        return ()

    @abstractmethod
    def restyled(self, mean: Tensor, std: Tensor, draw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """New mean and standard deviation from the old ones, each ``[B, C, 1, 1]``."""


class MixStyle(FeatureStyle):
    """Statistics mixed with those of another image of the batch (Zhou et al., 2021): weight Beta(alpha, alpha)."""

    def __init__(self, probability: float, alpha: float):
        super().__init__(probability)
        self.alpha = alpha

    def draw(self, count: int, device: torch.device) -> tuple[Tensor, ...]:
        concentration = torch.full((count, 1, 1, 1), self.alpha)  # on the CPU: not every device has Beta
        weight = torch.distributions.Beta(concentration, concentration).sample().to(device)
        return weight, torch.randperm(count, device=device)

    def restyled(self, mean: Tensor, std: Tensor, draw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        weight, partner = draw
        return torch.lerp(mean[partner], mean, weight), torch.lerp(std[partner], std, weight)


class UncertainStyle(FeatureStyle):
    """DSU (Li et al., 2022): statistics drawn from normals around their own, as wide as the batch's spread of them.

    A batch of one image has no spread and stays as it is.
    """

    def restyled(self, mean: Tensor, std: Tensor, draw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return self._around(mean), self._around(std)

    @staticmethod
    def _around(statistic: Tensor) -> Tensor:
        spread = statistic.std(0, keepdim=True) if len(statistic) > 1 else torch.zeros_like(statistic)
        return statistic + spread * torch.randn_like(statistic)


def statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over space of ``[B, C, h, w]``, each ``[B, C, 1, 1]``."""
    mean = maps.mean((2, 3), keepdim=True)
    return mean, (maps.var((2, 3), keepdim=True) + EPSILON).sqrt()
