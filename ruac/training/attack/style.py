"""Style attack: new colour statistics for every object and the background (sec. 3.3, app. B)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ruac.base.errors import RuacError
from ruac.training.attack.graph import STYLE_DIM, GraphConfig, ObjectGraphNetwork, object_graph
from ruac.training.attack.regions import region_features, spread, style_regions
from ruac.training.attack.reversal import reverse_gradient

STYLE_VARIANTS = ("global", "single", "multi", "multi_background", "graph")


@dataclass
class StyleConfig:
    """The style attack's reach and network. Image values are ImageNet-normalised.

    variant: which regions have a style of their own: ``global`` the whole image; ``single`` all objects
    together; ``multi`` each object; ``multi_background`` the background too; ``graph`` as before, and
    the regions' styles talk to each other. The first three leave out what they do not name.

    epsilon: bound of the residuals. With it the mean of a region moves by at most
    ``|mean| epsilon_mean tanh(epsilon/2) + epsilon tanh(epsilon)`` (defaults: 3.0 % + 0.087) and its std by
    a factor within ``1 +- epsilon_std tanh(epsilon/2)`` (7.4 %).

    min_pixels: smaller regions take the whole image's statistics. A number at 1024 px, scaled with the
    area, so that it means the same share of an image of any size.

    min_std, limit: the attack takes no std below the one and no value beyond +- the other; what is
    there already before the attack stays as it is.
    """

    variant: str = "graph"
    epsilon: float = 0.3
    epsilon_mean: float = 0.2
    epsilon_std: float = 0.5
    min_std: float = 0.1
    limit: float = 3.0
    min_pixels: float = 100.0
    hidden: int = 128
    init_std: float = 0.01
    graph: GraphConfig = field(default_factory=GraphConfig)

    def validate(self) -> None:
        if self.variant not in STYLE_VARIANTS:
            raise RuacError(f"style.variant: expected one of {', '.join(STYLE_VARIANTS)}, found '{self.variant}'")
        for key in ("epsilon", "limit", "hidden"):
            if getattr(self, key) <= 0:
                raise RuacError(f"style.{key}: expected a value above 0, found {getattr(self, key)}")
        for key in ("epsilon_mean", "epsilon_std", "min_std", "min_pixels", "init_std"):
            if getattr(self, key) < 0:
                raise RuacError(f"style.{key}: expected a value >= 0, found {getattr(self, key)}")
        if self.epsilon_std >= 1:
            raise RuacError(f"style.epsilon_std: expected a value below 1, found {self.epsilon_std}")


@torch.no_grad()
def region_statistics(images: Tensor, regions: Tensor, min_pixels: float) -> tuple[Tensor, Tensor]:
    """Mean and std of every region's colours, each ``[B, R, 3]``; the std within [0.01, 5].

    Regions of fewer than ``min_pixels (S / 1024)^2`` pixels take the whole image's.
    """
    pixels, weight = images.flatten(2), regions.flatten(2)  # [B, 3, P], [B, R, P]
    centre = pixels.mean(-1)  # [B, 3]
    pixels = pixels - centre[..., None]  # deviations, so that the variance below is no difference of large numbers
    area = weight.sum(-1, keepdim=True)  # [B, R, 1]
    shift = weight @ pixels.transpose(1, 2) / area.clamp_min(1)  # [B, R, 3]
    square = weight @ pixels.square().transpose(1, 2) / area.clamp_min(1)
    small = area < min_pixels * images.shape[-1] ** 2 / 1024**2
    mean = torch.where(small, centre[:, None], centre[:, None] + shift)
    variance = torch.where(small, pixels.square().mean(-1)[:, None], square - shift.square())
    return mean, variance.clamp_min(0).sqrt().clamp(0.01, 5.0)


def restyle(images: Tensor, regions: Tensor, residual: Tensor, config: StyleConfig) -> Tensor:
    """Give every region the statistics that `residual` asks for. Returns images ``[B, 3, S, S]``.

    residual: ``[B, R, 6]`` in ``[-epsilon, epsilon]``: (mean, std) of R, G, B.

    AdaIN, ``(x - mean) / std * std' + mean'``, written as ``x + gain (x - mean) + shift``: both vanish with the
    residual, so that no attack leaves the image bit for bit. Where regions overlap, their changes are averaged.
    A change is affine in x, so that averaging coefficients costs no image per region.
    """
    mean, std = region_statistics(images, regions, config.min_pixels)
    to_mean, to_std = residual.split(3, dim=-1)
    # tanh(r / 2) = 2 sigmoid(r) - 1, exactly odd in floating point
    shift = mean * config.epsilon_mean * torch.tanh(to_mean / 2) + config.epsilon * torch.tanh(to_mean)
    # std' >= min_std, unless the region is flatter than that to begin with: then it gets no flatter
    gain = torch.maximum(config.epsilon_std * torch.tanh(to_std / 2), (config.min_std / std).clamp_max(1) - 1)

    per_pixel = spread(torch.cat([gain, shift - gain * mean], dim=-1), regions)
    slope, offset = per_pixel.split(3, dim=1)  # [B, 3, S, S] each
    return (images + (slope * images + offset)).clamp(images.clamp_max(-config.limit), images.clamp_min(config.limit))


class StyleAttacker(nn.Module):
    """Predicts a style for every region from the clean image's features; learned behind gradient reversal.

    Parameters at 256 channels: 33,926 (paper: 34 K), and 34,012 in the object graph (paper: 34 K).

    Residuals are limited smoothly, ``epsilon tanh(r / epsilon)``, where the paper clamps: the bound is the
    same, but a residual that has reached it can still be moved.
    """

    def __init__(self, config: StyleConfig, *, feature_dim: int = 256):
        super().__init__()
        self.config = config
        self.mlp = nn.Sequential(
            nn.Linear(feature_dim, config.hidden),
            nn.LayerNorm(config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, STYLE_DIM),
        )
        for layer in (self.mlp[0], self.mlp[-1]):
            nn.init.normal_(layer.weight, std=config.init_std)
            nn.init.zeros_(layer.bias)
        self.graph = None
        if config.variant == "graph":
            self.graph = ObjectGraphNetwork(
                config.graph, feature_dim=feature_dim, projection_hidden=config.hidden, init_std=config.init_std
            )

    def residual(self, embedding: Tensor, regions: Tensor) -> Tensor:
        """``[B, D, s, s], [B, R, S, S] -> [B, R, 6]``, bounded by epsilon."""
        features = region_features(embedding, regions)
        residual = self.mlp(features)
        if self.graph is not None:
            adjacency = object_graph(regions, features, embedding.shape[-1], self.config.graph)
            residual = residual + self.config.graph.weight * self.graph(residual, features, adjacency)
        return self.config.epsilon * torch.tanh(residual / self.config.epsilon)

    def forward(self, images: Tensor, embedding: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
        """Attacked images ``[B, 3, S, S]``.

        embedding: clean stride-16 features ``[B, D, S/16, S/16]``, detached here. masks: ``[B, K, S, S]`` in
        {0, 1}, overlaps allowed. valid: bool ``[B, K]``. Float32 also under autocast: the work is small and the
        statistics are delicate.
        """
        with torch.autocast(images.device.type, enabled=False):
            regions = style_regions(masks.to(images.dtype), valid, self.config.variant)
            residual = self.residual(embedding.detach().to(images.dtype), regions)
            return restyle(images, regions, reverse_gradient(residual), self.config)


class RandomStyle(nn.Module):
    """The control for `StyleAttacker`: residuals drawn uniformly within the same bound, nothing learned."""

    def __init__(self, config: StyleConfig):
        super().__init__()
        self.config = config

    def forward(self, images: Tensor, embedding: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
        """Attacked images ``[B, 3, S, S]``; arguments as in `StyleAttacker`, `embedding` is not looked at."""
        with torch.autocast(images.device.type, enabled=False):
            regions = style_regions(masks.to(images.dtype), valid, self.config.variant)
            noise = torch.rand(*regions.shape[:2], STYLE_DIM, device=images.device, dtype=images.dtype)
            return restyle(images, regions, self.config.epsilon * (2 * noise - 1), self.config)
