"""What a predictor answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ruac.inference.expected_iou import expected_iou


@dataclass(frozen=True)
class PredictedMasks:
    """M masks of one prompted object, best score first. Arrays are float32 unless said otherwise.

    masks: ``bool [M, H, W]``, where the upsampled logit is positive; with the signed posterior SAM
    2's own, bit for bit. Less what a correction drops, if asked for. With `return_logits` the logits
    themselves. scores: predicted IoU ``[M]``.
    logits: ``[M, h, w]`` at stride 4, to be given back as `mask_input`. probability: of the object,
    ``[M, H, W]``, the sigmoid of the upsampled calibrated logit. Calibration keeps the sign of a logit
    but not its slope to the next, so that the probability crosses 1/2 in the same cell of the stride-4
    grid as the mask's contour, but not always at the same picture pixel. uncertainty: total,
    ``[M, H, W]`` in [0, 1] (0 certain, 1 coin toss). aleatoric and epistemic: its parts, None unless
    asked for or without a head. tokens: ``int [M]``, which of SAM 2's masks each is: 1 to 3 the
    candidates, 0 the single mask. reliability: IoU to expect of each mask by what was fitted on source images
    (`reliability.Reader`), ``[M]``; None where nothing was fitted for such answers.
    inner, outer: ``bool [M, H, W]``, None unless asked for by an alpha: of the first mask, the share of the object
    outside `outer`, and of `inner` outside the object, is at most alpha in expectation, for pictures and prompts like
    those it was fitted on (`MaskBounds` says what that means).

    Of N > 1 objects every array has one more dimension in front, ``[N, M, ...]``.
    """

    masks: np.ndarray
    scores: np.ndarray
    logits: np.ndarray
    probability: np.ndarray
    uncertainty: np.ndarray
    aleatoric: np.ndarray | None = None
    epistemic: np.ndarray | None = None
    tokens: np.ndarray | None = None
    reliability: np.ndarray | None = None
    inner: np.ndarray | None = None
    outer: np.ndarray | None = None

    @property
    def expected_iou(self) -> np.ndarray:
        """IoU to expect of each mask by its probability map, ``[M]``; see `expected_iou.expected_iou`."""
        return expected_iou(self.masks > 0, self.probability)

    @property
    def trust(self) -> np.ndarray:
        """The one number to rank masks by, ``[M]``: reliability, or without a fit the smaller of both IoUs."""
        return np.minimum(self.scores, self.expected_iou) if self.reliability is None else self.reliability

    def each(self) -> list[PredictedMasks]:
        """The answer to each of the N objects, of ``[M, ...]``; of one object the answer itself."""
        return [self] if self.masks.ndim == 3 else [self.part(index) for index in range(len(self.masks))]

    def part(self, index: Any) -> PredictedMasks:
        """All arrays at an index of their first dimension."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return PredictedMasks(**{name: None if array is None else array[index] for name, array in arrays.items()})

    def __iter__(self) -> Iterator[np.ndarray]:
        """``masks, scores, logits`` as SAM 2's own predictor returns them: in its order, masks as float32."""
        order = np.argsort(self.tokens, axis=-1)
        yield _rows(self.masks, order).astype(np.float32)
        yield _rows(self.scores, order)
        yield _rows(self.logits, order)


@dataclass(frozen=True)
class PredictedBatch:
    """answers: one per picture. Unpacks as SAM 2's ``masks, scores, logits``, three lists."""

    answers: list[PredictedMasks]

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter([list(arrays) for arrays in zip(*self.answers, strict=True)])


def _rows(array: np.ndarray, order: np.ndarray) -> np.ndarray:
    """``array [..., M, ...]`` with its M masks in ``order [..., M]``."""
    return np.take_along_axis(array, order.reshape(*order.shape, *[1] * (array.ndim - order.ndim)), order.ndim - 1)
