"""What a SAM 2 backbone hands to the rest of the package."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Features:
    """Image features of a batch.

    embedding: ``[B, D, S/16, S/16]``, what the mask decoder attends to.
    high_res: ``[B, D/8, S/4, S/4]`` and ``[B, D/4, S/8, S/8]``, added while upscaling.
    image: the picture at the logits' resolution ``[B, 3, S/4, S/4]``, for what reads both; None where nobody kept it.
    frame: rows and columns of model pixels that the picture fills, None for the whole square. Features of a model that
    pads pictures have no high_res, its own stride, and an image of the picture alone.
    """

    embedding: Tensor
    high_res: list[Tensor]
    image: Tensor | None = None
    frame: tuple[int, int] | None = None

    @staticmethod
    def joined(parts: list[Features]) -> Features:
        """The images of all `parts`, which one backbone made of pictures of one frame, one after the other."""
        images = [part.image for part in parts]
        return Features(
            torch.cat([part.embedding for part in parts]),
            [torch.cat(level) for level in zip(*(part.high_res for part in parts), strict=True)],
            None if images[0] is None else torch.cat(images),
            parts[0].frame,
        )

    def gather(self, image_index: Tensor) -> Features:
        """Repeat the features of image ``image_index[n]`` for object n: ``B -> N``."""
        image = None if self.image is None else self.image[image_index]
        return Features(self.embedding[image_index], [level[image_index] for level in self.high_res], image, self.frame)

    def expand(self, count: int) -> Features:
        """The features of one image for each of `count` objects: views, where `gather` would copy."""
        embedding, *high_res = (level.expand(count, -1, -1, -1) for level in (self.embedding, *self.high_res))
        image = None if self.image is None else self.image.expand(count, -1, -1, -1)
        return Features(embedding, high_res, image, self.frame)

    def detach(self) -> Features:
        image = None if self.image is None else self.image.detach()
        return Features(self.embedding.detach(), [level.detach() for level in self.high_res], image, self.frame)


@dataclass
class Decoded:
    """One decoder pass over N prompted objects, all four mask tokens (0: single mask, 1..3: candidates).

    logits: ``[N, 4, h, w]`` with ``h = w = S/4``, the inner product of the two factors below.
    iou: ``[N, 4]`` predicted IoU. object_score: ``[N, 1]`` logit of "the object is present".
    mask_tokens: ``[N, 4, D]``. pixel_tokens: ``[N, c, h, w]``, c = D/8. mask_weights: ``[N, 4, c]``.
    """

    logits: Tensor
    iou: Tensor
    object_score: Tensor
    mask_tokens: Tensor
    pixel_tokens: Tensor
    mask_weights: Tensor

    def detach(self) -> Decoded:
        return Decoded(**{name: value.detach() for name, value in vars(self).items()})


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """``[N, M, h, w]`` to ``[N, M, H, W]``, bilinear as SAM 2 does it."""
    return F.interpolate(maps.float(), size, mode="bilinear", align_corners=False)


def best_candidate(iou: Tensor) -> Tensor:
    """Token of the multimask candidate of highest predicted IoU (``[N, 4]``), int64 ``[N]`` of 1 to 3."""
    return iou[:, 1:].argmax(dim=1) + 1


def of_token(maps: Tensor, choice: Tensor) -> Tensor:
    """What ``maps [N, 4, ...]`` holds of token ``choice[n]`` of object n, ``[N, 1, ...]``."""
    return maps[torch.arange(len(choice), device=choice.device), choice][:, None]


def of_tokens(maps: Tensor, tokens: Tensor) -> Tensor:
    """What ``maps [N, 4, ...]`` holds of ``tokens [N, M]``, ``[N, M, ...]``."""
    return maps[torch.arange(len(tokens), device=maps.device)[:, None], tokens]


def as_prompt(logits: Tensor) -> Tensor:
    """Mask logits as SAM 2 wants them back: without gradient, clamped to +-32."""
    return logits.detach().clamp(-32.0, 32.0)
