"""Windows of one size around the objects of a batch: what happens near an object needs no look at its whole picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ruac.backbone.prompts import boxes_of


@dataclass(frozen=True)
class Windows:
    """One window per object. tops, lefts: of its first pixel. height, width: of all of them. side: of the pictures."""

    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    height: int
    width: int
    side: int

    @staticmethod
    def around(masks: Tensor, margin: float) -> Windows:
        """The smallest that hold every object of ``[N, S, S]`` and `margin` pixels about it, as far as there are any.

        The whole picture on a GPU, which would have to be waited for to know, and where the margin is no number.
        """
        count, side = len(masks), masks.shape[-1]
        whole = Windows((0,) * count, (0,) * count, side, side, side)
        if masks.device.type != "cpu" or not margin < side:
            return whole
        reach = int(margin) + 1
        first, last = boxes_of(masks > 0).long().unbind(1)  # [N, 2] each, x and y
        first, last = (first - reach).clamp_min(0), (last + reach).clamp_max(side)
        width, height = (last - first).amax(0).tolist()
        lefts, tops = (tuple(first[:, axis].clamp_max(side - n).tolist()) for axis, n in ((0, width), (1, height)))
        return Windows(tops, lefts, height, width, side)

    @property
    def rows(self) -> list[slice]:
        return [slice(top, top + self.height) for top in self.tops]

    @property
    def columns(self) -> list[slice]:
        return [slice(left, left + self.width) for left in self.lefts]

    def crop(self, pictures: Tensor, owner: Sequence[int]) -> Tensor:
        """``[B, C, S, S]`` to ``[N, C, h, w]``: of object n from picture ``owner[n]``."""
        return _Crop.apply(pictures, self, tuple(owner))

    def paste(self, patches: Tensor, owner: Sequence[int], count: int) -> Tensor:
        """``[N, C, h, w]`` to ``[count, C, S, S]``: the sum of what lies on each pixel, else 0."""
        return _Paste.apply(patches, self, tuple(owner), count)

    def _cropped(self, pictures: Tensor, owner: tuple[int, ...]) -> Tensor:
        return torch.stack([pictures[n, :, y, x] for n, y, x in zip(owner, self.rows, self.columns, strict=True)])

    def _pasted(self, patches: Tensor, owner: tuple[int, ...], count: int) -> Tensor:
        total = patches.new_zeros(count, patches.shape[1], self.side, self.side)
        for patch, n, y, x in zip(patches, owner, self.rows, self.columns, strict=True):
            total[n, :, y, x] += patch
        return total


class _Crop(torch.autograd.Function):
    """Slices would each have a gradient of the whole batch's size."""

    @staticmethod
    def forward(ctx: Any, pictures: Tensor, windows: Windows, owner: tuple[int, ...]) -> Tensor:
        ctx.windows, ctx.owner, ctx.count = windows, owner, len(pictures)
        return windows._cropped(pictures, owner)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.windows.paste(grad, ctx.owner, ctx.count), None, None


class _Paste(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, patches: Tensor, windows: Windows, owner: tuple[int, ...], count: int) -> Tensor:
        ctx.windows, ctx.owner = windows, owner
        return windows._pasted(patches, owner, count)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.windows.crop(grad, ctx.owner), None, None, None
