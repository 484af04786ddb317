"""What calibrators are fitted to and what they may read: logits, the truth at some pixels, and evidence beside both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ruac.base.errors import RuacError

if TYPE_CHECKING:
    from ruac.backbone.outputs import Features
    from ruac.backbone.prompts import Prompts

MANY = 100  # logits among which one at least is negative or above 1, if they are no probabilities


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of N answers beside their logits; None where it is not at hand.

    image: the picture at the logits' resolution ``[N, 3, h, w]``, normalised. feature: the mean of the backbone's
    embedding ``[N, D]``. clicks: int64 ``[N]``. boxed: bool ``[N]``, whether a box was given. tokens: SAM 2's logits
    ``[N, 4, h, w]`` of all masks, with their predicted ``iou [N, 4]``; choice: which of them is the answer, int64
    ``[N]``.
    """

    image: Tensor | None = None
    feature: Tensor | None = None
    clicks: Tensor | None = None
    boxed: Tensor | None = None
    tokens: Tensor | None = None
    iou: Tensor | None = None
    choice: Tensor | None = None

    @classmethod
    def of(cls, features: Features, prompts: Prompts, logits: Tensor, iou: Tensor) -> Evidence:
        """Of an answer to N prompts: `logits`, whose signs are the masks, and `iou` of all four tokens; on features of
        one picture or gathered per object."""
        n = logits.shape[0]  # of a graph for any number of objects len() would make one for this number
        return cls(
            image=None if features.image is None else features.image.expand(n, -1, -1, -1),
            feature=features.embedding.float().mean((2, 3)).expand(n, -1),
            clicks=(prompts.labels.eq(0) | prompts.labels.eq(1)).sum(1),
            boxed=prompts.labels.ge(2).any(1),
            tokens=logits.float(),
            iou=iou.float(),
        )

    def to(self, device: torch.device) -> Evidence:
        return Evidence(
            **{f.name: None if (v := getattr(self, f.name)) is None else v.to(device) for f in fields(self)}
        )

    def need(self, kind: str, *names: str) -> list[Tensor]:
        """The named ones. Raises `RuacError` where the calibrator `kind` reads what is not at hand."""
        for name in names:
            if getattr(self, name) is None:
                raise RuacError(f"{kind} calibration reads '{name}', which these logits come without")
        return [getattr(self, name) for name in names]


@dataclass(frozen=True, eq=False)
class Answers:
    """N answers to one picture, and the truth at P of its pixels.

    logits: ``float32 [N, 1, h, w]``. place: ``float32 [P, 3]``, object and (y, x) in cells of the logits' grid.
    truth: ``float32 [P]``, 0 or 1. near: bool ``[P]``, whether the pixel was drawn from the object's band.
    """

    logits: Tensor
    place: Tensor
    truth: Tensor
    near: Tensor
    evidence: Evidence

    @classmethod
    def of(cls, logits: Any, truth: Any, evidence: Evidence | None = None) -> Answers:
        """Of one's own logits with the truth of each, arrays or tensors of one shape; of maps ``[N, h, w]`` or any.

        Raises `RuacError` for other shapes, no logit, or what `check_logits` refuses.
        """
        logits, truth = torch.as_tensor(logits).float(), torch.as_tensor(truth)
        if logits.shape != truth.shape or not logits.numel():
            raise RuacError(
                f"logits {list(logits.shape)}, truth {list(truth.shape)}: expected one shape, and not empty"
            )
        if truth.is_floating_point() and not ((truth == 0) | (truth == 1)).all():
            raise RuacError("truth: expected 0 and 1 only")
        check_logits(logits)
        maps = logits if logits.ndim == 3 else logits.reshape(1, 1, -1)
        axes = (torch.arange(size, dtype=torch.float32) for size in maps.shape)
        place = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
        every = torch.ones(len(place), dtype=torch.bool)
        return cls(maps[:, None], place, truth.reshape(-1).float(), every, evidence or Evidence())

    def at_places(self, maps: Tensor) -> Tensor:
        """``[N, C, h, w]`` at the P pixels, ``[P, C]``: what `upsample` to the picture's size would give there."""
        n = self.place[:, 0].long()
        y, x = (self.place[:, axis].clamp(0, maps.shape[axis + 1] - 1) for axis in (1, 2))
        top, left = y.long(), x.long()
        bottom, right = (top + 1).clamp(max=maps.shape[2] - 1), (left + 1).clamp(max=maps.shape[3] - 1)
        down, across = (y - top)[:, None], (x - left)[:, None]
        above = maps[n, :, top, left] * (1 - across) + maps[n, :, top, right] * across
        below = maps[n, :, bottom, left] * (1 - across) + maps[n, :, bottom, right] * across
        return above * (1 - down) + below * down

    def nearest(self) -> tuple[Tensor, Tensor, Tensor]:
        """Object, row and column of the cell in which each pixel lies, int64 ``[P]``."""
        height, width = self.logits.shape[2:]
        n, y, x = self.place.round().long().unbind(1)
        return n, y.clamp(0, height - 1), x.clamp(0, width - 1)

    def pixels(self, logits: Tensor | None = None) -> Tensor:
        """Logits ``[P]`` at the pixels, or others ``[N, 1, h, w]`` in their place."""
        return self.at_places(self.logits if logits is None else logits)[:, 0]

    def to(self, device: torch.device) -> Answers:
        moved = {name: getattr(self, name).to(device) for name in ("logits", "place", "truth", "near")}
        return replace(self, evidence=self.evidence.to(device), **moved)


def check_logits(logits: Tensor) -> None:
    """Raise `RuacError` for logits that are not finite, or that look like probabilities."""
    if not logits.is_floating_point():
        raise RuacError(f"logits: {logits.dtype}, expected floating point")
    if not torch.isfinite(logits).all():
        place = (~torch.isfinite(logits)).nonzero()[0].tolist()
        raise RuacError(f"logits: {float(logits[tuple(place)])} at {place}, expected finite numbers")
    if logits.numel() >= MANY:
        low, high = logits.min().item(), logits.max().item()
        if low >= 0 and high <= 1 and low < high:
            raise RuacError(f"logits: all from {low:.3g} to {high:.3g}, which are probabilities; expected logits")


def check_answers(answers: Sequence[Answers], *, images: int = 1) -> None:
    """Raise `RuacError` for fewer than `images` answers, or pixels of which the truth is all the same."""
    if len(answers) < images:
        raise RuacError(f"{len(answers)} images to calibrate on, expected at least {images}")
