"""Deformation attack: every object, image and mask alike, is bent a little (sec. 3.3, app. B)."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.backbone import MemoryBlocks
from ruac.base.errors import RuacError
from ruac.training.attack.reversal import reverse_gradient
from ruac.training.attack.windows import Windows


@dataclass
class DeformationConfig:
    """The deformation attack's reach and network.

    epsilon: bound of the raw offsets, in feature cells of 16 px (0.15: 2.4 px). Taking away their mean over
    the object can double it, so that no pixel moves by more than ``2 epsilon`` cells (4.8 px) along an axis.
    Below 0.25 the field cannot fold over itself.

    scales: grids on which offsets are predicted and added up, in cells; the paper's is 1. One of scale k is k times as
    coarse and its offsets may be k times as large, so that it bends as steeply and reaches further: all together
    ``2 epsilon sum(scales)`` cells, and the steepness is that of one times their number.

    min_pixels: an object left with fewer after the warp is not warped.
    """

    epsilon: float = 0.15
    scales: list[int] = field(default_factory=lambda: [1])
    hidden: int = 128
    init_std: float = 0.001
    min_pixels: int = 4

    def validate(self) -> None:
        if not 0 < self.epsilon <= 1:
            raise RuacError(f"deformation.epsilon: expected feature cells in (0, 1], found {self.epsilon}")
        if not self.scales or min(self.scales) < 1 or len(set(self.scales)) < len(self.scales):
            raise RuacError(f"deformation.scales: expected different whole numbers of at least 1, found {self.scales}")
        if self.hidden < 2:
            raise RuacError(f"deformation.hidden: expected at least 2, found {self.hidden}")
        if self.init_std < 0:
            raise RuacError(f"deformation.init_std: expected a value >= 0, found {self.init_std}")
        if self.min_pixels < 1:
            raise RuacError(f"deformation.min_pixels: expected at least 1, found {self.min_pixels}")


class Deformed(NamedTuple):
    """images: ``[B, 3, S, S]``. masks: ``[B, K, S, S]`` in {0, 1}.

    displacement: ``[N, 2, S, S]`` pixels (x, y), of the N valid objects in order: pixel p shows what was at
    ``p + displacement``. It carries no gradient.
    """

    images: Tensor
    masks: Tensor
    displacement: Tensor


def centred(offsets: Tensor, masks: Tensor) -> Tensor:
    """Offsets in cells ``[N, 2, s, s]`` less their mean over the object ``[N, 1, S, S]``: it bends but does not go."""
    weight = F.avg_pool2d(masks, masks.shape[-1] // offsets.shape[-1])  # [N, 1, s, s]
    return offsets - (offsets * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1e-6)


def interpolated(offsets: Tensor, windows: Windows) -> Tensor:
    """Displacement in pixels ``[N, 2, h, w]`` of the windows, bilinear between offsets in cells ``[N, 2, s, s]``.

    Along one axis after the other, as products of small matrices: no map of the whole picture, there or back.
    """
    cells = torch.eye(offsets.shape[-1], device=offsets.device, dtype=offsets.dtype)[None]
    along = F.interpolate(cells, size=windows.side, mode="linear", align_corners=False)[0].T  # [S, s]
    down, across = (torch.stack([along[n] for n in which]) for which in (windows.rows, windows.columns))
    with torch.autocast(offsets.device.type, enabled=False):
        return windows.side // offsets.shape[-1] * torch.einsum("nhy,ncyx,nwx->nchw", down, offsets, across)


def at_scales(raw: Tensor, config: DeformationConfig) -> Tensor:
    """Offsets in cells ``[N, 2, s, s]`` from those of every scale ``[N, 2 len(scales), s, s]``, each in [-1, 1].

    Cells of a coarser grid get their mean; what lies between cells is interpolated.
    """
    total = 0.0
    for scale, each in zip(config.scales, raw.split(2, dim=1), strict=True):
        if scale > 1:
            coarse = F.adaptive_avg_pool2d(each, tuple(max(1, side // scale) for side in each.shape[-2:]))
            each = F.interpolate(coarse, size=each.shape[-2:], mode="bilinear", align_corners=False)
        total = total + config.epsilon * scale * each
    return total


def _sample(pictures: Tensor, displacement: Tensor | None = None) -> Tensor:
    """Look up every pixel of ``[N, C, h, w]`` at its own place plus `displacement`, bilinearly."""
    height, width = pictures.shape[-2:]
    y, x = (
        (2 * torch.arange(size, device=pictures.device, dtype=pictures.dtype) + 1) / size - 1
        for size in (height, width)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).expand(len(pictures), -1, -1, -1)
    if displacement is not None:
        grid = grid + displacement.permute(0, 2, 3, 1) * grid.new_tensor([2 / width, 2 / height])
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


def deform(images: Tensor, masks: Tensor, valid: Tensor, offsets: Tensor, config: DeformationConfig) -> Deformed:
    """Warp the N valid objects and their masks by offsets ``[N, 2, S/16, S/16]`` (cells), paste them where they land.

    Where warped objects overlap, their changes are averaged; where none lies, also where one used to lie, the
    image stays as it was. The masks are binary again and carry no gradient; it flows through the image.

    What is pasted is a change, ``image(p + d) - image(p)``, and not ``image(p + d)``: `grid_sample` rounds
    coordinates, so that even at d = 0 it returns the image only up to rounding. With both terms sampled in the
    same way they cancel exactly at d = 0, which leaves image and masks bit for bit; the second does not depend
    on d, so that the gradient is that of the plain warp.

    Nothing is looked up beyond windows about the objects, in which they land wherever they move. Coordinates are
    rounded, and a lookup has a kink at every pixel: where d is that small, float32 may take the other side's slope.
    """
    if len(offsets) == 0:
        return Deformed(images, masks, images.new_zeros(0, 2, *images.shape[-2:]))
    owner = valid.nonzero()[:, 0].tolist()  # image of each object
    itself = range(len(owner))
    whole = masks[valid][:, None]  # [N, 1, S, S]
    offsets = centred(offsets, whole)
    stride = images.shape[-1] // offsets.shape[-1]
    windows = Windows.around(whole[:, 0], _reach(offsets, stride))
    old, before = windows.crop(whole, itself), windows.crop(images, owner)  # [N, 1, h, w], [N, 3, h, w]
    displacement = interpolated(offsets, windows)
    warped, landed = _sample(torch.cat([before, old], dim=1), displacement).split([3, 1], dim=1)
    new = (landed.detach() > 0.5).to(old.dtype)
    survives = new.sum((1, 2, 3), keepdim=True) >= config.min_pixels  # [N, 1, 1, 1]
    new = torch.where(survives, new, old)

    change = (warped - _sample(before)) * (new * survives)  # [N, 3, h, w]
    total, count = windows.paste(change, owner, len(images)), windows.paste(new, owner, len(images))
    masks = masks.clone()
    masks[valid] = windows.paste(new, itself, len(owner))[:, 0]
    with torch.no_grad():
        everywhere = interpolated(offsets * survives, Windows.around(whole[:, 0], math.inf))
    return Deformed(images + total / count.clamp_min(1), masks, everywhere)


def _reach(offsets: Tensor, stride: int) -> float:
    """Pixels about an object within which all is looked up that reaches it, and a pixel for interpolation."""
    return stride * offsets.detach().abs().amax().item() + 1 if offsets.device.type == "cpu" else math.inf


class DeformationAttacker(nn.Module):
    """Predicts an offset field for every object from clean features and its mask; learned behind gradient reversal.

    Features and mask meet in frozen copies of SAM 2's memory-encoder blocks (1,368,160 parameters in the
    released models, paper: 1.37 M). The offset net has 369,792 at 256 channels (paper: 370 K). Its convolutions
    have no bias: the norms take two of them away, subtracting the mean over the object takes the third.
    """

    def __init__(self, config: DeformationConfig, memory_blocks: MemoryBlocks, *, feature_dim: int = 256):
        super().__init__()
        self.config = config
        self.frozen = nn.ModuleDict({name: deepcopy(block) for name, block in memory_blocks._asdict().items()})
        self.frozen.requires_grad_(False).eval()
        half = config.hidden // 2
        self.net = nn.Sequential(
            nn.InstanceNorm2d(feature_dim),
            nn.Conv2d(feature_dim, config.hidden, 3, padding=1, bias=False),
            nn.InstanceNorm2d(config.hidden),
            nn.ReLU(),
            nn.Conv2d(config.hidden, half, 3, padding=1, bias=False),
            nn.InstanceNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, 2 * len(config.scales), 3, padding=1, bias=False),
        )
        nn.init.normal_(self.net[-1].weight, std=config.init_std)

    def train(self, mode: bool = True) -> DeformationAttacker:
        super().train(mode)
        self.frozen.eval()
        return self

    @torch.no_grad()
    def fuse(self, embedding: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
        """Memory-encoder features ``[N, D, s, s]`` of the valid objects."""
        owner = valid.nonzero()[:, 0]
        # SAM 2 shows its memory encoder given masks as 20 m - 10, without a sigmoid
        shape = self.frozen["mask_downsampler"](20 * masks[valid][:, None] - 10)
        sums = self.frozen["pix_feat_proj"](embedding)[owner] + shape
        # Its layers read pixel by pixel: with channels last a CPU need not lay each out anew.
        return self.frozen["fuser"](sums.contiguous(memory_format=torch.channels_last))

    def forward(self, images: Tensor, embedding: Tensor, masks: Tensor, valid: Tensor) -> Deformed:
        """Attacked images, masks and the displacement.

        images: ``[B, 3, S, S]``, perhaps restyled. embedding: clean stride-16 features ``[B, D, S/16, S/16]``,
        which get no gradient. masks: ``[B, K, S, S]`` in {0, 1}, overlaps allowed. valid: bool ``[B, K]``.
        """
        masks = masks.to(images.dtype)
        fused = self.fuse(embedding, masks, valid)
        offsets = at_scales(torch.tanh(self.net(fused).to(images.dtype) / 2), self.config)  # 2 sigmoid - 1
        return deform(images, masks, valid, reverse_gradient(offsets), self.config)


class RandomDeformation(nn.Module):
    """The control for `DeformationAttacker`: offsets drawn uniformly within the same bound, cell by cell."""

    def __init__(self, config: DeformationConfig):
        super().__init__()
        self.config = config

    def forward(self, images: Tensor, embedding: Tensor, masks: Tensor, valid: Tensor) -> Deformed:
        """As `DeformationAttacker.forward`; of `embedding` only the size matters."""
        masks = masks.to(images.dtype)
        cells = embedding.shape[-2:]
        count = 2 * len(self.config.scales)
        noise = torch.rand(len(valid.nonzero()), count, *cells, device=images.device, dtype=images.dtype)
        return deform(images, masks, valid, at_scales(2 * noise - 1, self.config), self.config)
