"""The object graph of an image and the graph network that lets objects agree on a style (app. B, steps 3 and 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.base.errors import RuacError

STYLE_DIM = 6  # a shift of the mean and of the std for each of R, G, B


@dataclass
class GraphConfig:
    """distance_threshold: tau_d, as a share of the image diagonal. weight: share of the graph's answer that is added.

    hidden: width between the two graph layers. The paper does not give it.
    """

    distance_threshold: float = 1.0
    cosine_threshold: float = 0.5
    background_edge: float = 0.5
    hidden: int = 16
    dropout: float = 0.1
    weight: float = 0.1

    def validate(self) -> None:
        if self.hidden < 1:
            raise RuacError(f"graph.hidden: expected at least 1, found {self.hidden}")
        if not 0 <= self.dropout < 1:
            raise RuacError(f"graph.dropout: expected a value in [0, 1), found {self.dropout}")
        if self.background_edge < 0:
            raise RuacError(f"graph.background_edge: expected a value >= 0, found {self.background_edge}")
        if self.distance_threshold < 0:
            raise RuacError(f"graph.distance_threshold: expected a value >= 0, found {self.distance_threshold}")


def region_distances(occupied: Tensor) -> Tensor:
    """Smallest distance, in cells, between the occupied cells of each two regions.

    occupied: bool ``[B, R, s, s]``. Returns ``[B, R, R]``, centre to centre; 0 where two regions share
    a cell, infinite where one of them is empty.

    Exact on the grid: the squared Euclidean distance transform of every region is separable, a minimum
    along each axis in turn (``B R s^3`` operations instead of the ``B R^2 s^4`` of all pairs of cells);
    the distance of i and j is the minimum of i's transform over the cells of j.
    """
    side = occupied.shape[-1]
    steps = torch.arange(side, device=occupied.device, dtype=torch.float32)
    apart = (steps[:, None] - steps[None, :]).square()  # [s, s]
    to_cell = torch.zeros(occupied.shape, device=occupied.device).masked_fill(~occupied, torch.inf)
    along_x = (to_cell[..., None, :] + apart).amin(-1)  # [B, R, y', x]
    squared = (along_x.transpose(-1, -2)[..., None, :] + apart).amin(-1).transpose(-1, -2)  # [B, R, y, x]
    between = squared[:, :, None].masked_fill(~occupied[:, None], torch.inf)  # [B, R, R, s, s]
    return between.flatten(3).amin(-1).sqrt()


@torch.no_grad()
def object_graph(regions: Tensor, features: Tensor, cells: int, config: GraphConfig) -> Tensor:
    """Weighted adjacency of an image's objects and its background.

    regions: ``[B, R, S, S]`` in {0, 1}, the background last. features: ``[B, R, D]`` pooled over them.
    cells: side of the grid on which distances are measured (S / 16). Returns ``[B, R, R]``, symmetric.

    Between objects ``IoU + (1 - d) [d < tau_d] + cos [cos > threshold]`` with d the distance of their
    boundaries over the image diagonal. For objects that overlap d is 0, also when one lies inside the
    other: how much they share is the IoU's business. An object and the background are joined by a
    constant, every node has a self-loop of 1, and an empty region nothing else.
    """
    side, count = regions.shape[-1], regions.shape[1]
    objects = regions[:, :-1]
    flat = objects.flatten(2)  # [B, K, S*S]
    shared = flat @ flat.transpose(1, 2)  # [B, K, K]
    area = flat.sum(-1)
    iou = shared / (area[:, :, None] + area[:, None, :] - shared).clamp_min(1)

    occupied = F.max_pool2d(objects, side // cells) > 0
    distance = region_distances(occupied).to(iou.dtype) / (math.sqrt(2) * cells)
    near = (1 - distance).clamp_min(0) * (distance < config.distance_threshold)

    direction = F.normalize(features[:, :-1], dim=-1)
    cosine = direction @ direction.transpose(1, 2)
    alike = cosine * (cosine > config.cosine_threshold)

    edges = F.pad(iou + near + alike, (0, 1, 0, 1), value=config.background_edge)  # [B, R, R]
    present = (regions.flatten(2).sum(-1) > 0).to(edges.dtype)
    loops = torch.eye(count, device=edges.device, dtype=edges.dtype)
    return edges * present[:, :, None] * present[:, None, :] * (1 - loops) + loops


class ObjectGraphNetwork(nn.Module):
    """Two graph convolutions ``D^-1 A H W`` over nodes ``[style residual 6, projected feature 6]``.

    The first ends in LayerNorm, ReLU and dropout, the second is linear. Parameters at 256 channels:
    34,012. The paper counts 34 K, which the two graph layers (342 here) cannot hold: we read it as a
    projection of the features with a hidden layer, as wide as the style network's.
    """

    def __init__(self, config: GraphConfig, *, feature_dim: int, projection_hidden: int, init_std: float):
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(feature_dim, projection_hidden), nn.ReLU(), nn.Linear(projection_hidden, STYLE_DIM)
        )
        self.first = nn.Linear(2 * STYLE_DIM, config.hidden)
        self.norm = nn.LayerNorm(config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Linear(config.hidden, STYLE_DIM)
        nn.init.normal_(self.last.weight, std=init_std)
        nn.init.zeros_(self.last.bias)

    def forward(self, residual: Tensor, features: Tensor, adjacency: Tensor) -> Tensor:
        """``[B, R, 6], [B, R, D], [B, R, R] -> [B, R, 6]``."""
        spread = adjacency / adjacency.sum(-1, keepdim=True)  # self-loops: no degree is 0
        nodes = torch.cat([residual, self.project(features)], dim=-1)  # [B, R, 12]
        nodes = self.dropout(F.relu(self.norm(self.first(spread @ nodes))))  # [B, R, hidden]
        return self.last(spread @ nodes)
