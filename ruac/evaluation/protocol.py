"""The one prompt path of every evaluation: clicks on objects, the same for every model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ruac.backbone.outputs import Features, as_prompt, best_candidate, upsample
from ruac.backbone.prompts import (
    BACKGROUND,
    BOX_FIRST,
    BOX_SECOND,
    OBJECT,
    PADDING,
    Prompts,
    boxes_of,
    central_correction,
    central_pixel,
)
from ruac.base.errors import RuacError


@dataclass
class ProtocolConfig:
    """How objects are prompted (evaluation, sec. 2). Written into every result.

    first_click: center (farthest from the object's border) or random (seeded by the object's id).
    box: start from the object's tight box instead of a click. next_click: own_error (centre of
    the model's larger error region) or replay (the clicks of a stored manifest). mask_choice:
    predicted_iou or oracle (best true IoU). multimask: choose among three candidates, else take
    the single mask. feedback: give the previous mask as a prompt.
    """

    first_click: str = "center"
    clicks: int = 3
    next_click: str = "own_error"
    box: bool = False
    mask_choice: str = "predicted_iou"
    multimask: bool = True
    feedback: bool = True
    seed: int = 0

    def validate(self) -> None:
        choices = {
            "first_click": ("center", "random"),
            "next_click": ("own_error", "replay"),
            "mask_choice": ("predicted_iou", "oracle"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise RuacError(f"protocol.{name}: {getattr(self, name)!r}, expected {' or '.join(allowed)}")
        if self.clicks < 1:
            raise RuacError(f"protocol.clicks: {self.clicks}, expected at least 1")


@dataclass
class Round:
    """The state after one decoder pass over the N objects of an image.

    prediction: what the model's decode returned. choice: ``[N]`` token whose mask is returned.
    logits: ``[N, 1, h, w]`` of it. iou: ``[N]`` predicted. masks: ``bool [N, H, W]`` at the
    picture's resolution. points: ``[N, P, 2]`` (x, y) in picture pixels, labels ``[N, P]``. prompts: what
    the model was asked, in its own pixels.
    """

    prediction: Any
    choice: Tensor
    logits: Tensor
    iou: Tensor
    masks: np.ndarray
    points: np.ndarray
    labels: np.ndarray
    prompts: Prompts


def prompt_objects(
    decode: Callable[[Features, Prompts], Any],
    features: Features,
    truth: np.ndarray,
    config: ProtocolConfig,
    *,
    frame: tuple[int, int],
    keys: list[str],
    replay: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[Round]:
    """Prompt all objects of one image, yielding after every decoder pass.

    decode: (features ``[N, ...]``, prompts) to an object with ``logits [N, 4, h, w]`` and ``iou
    [N, 4]``. features: of the one image. truth: ``bool [N, H, W]``, none empty. frame: rows
    and columns of model pixels that the picture fills. keys: stable object ids, for the random first
    click. replay: points ``[N, clicks,
    2]`` (with `box` one more, for its second corner) and labels of a stored run, for ``next_click:
    replay``.

    Raises `RuacError` when clicks to replay are missing, too few or not wanted.
    """
    count, height, width = truth.shape
    _check_replay(replay, count, config)
    device = features.embedding.device
    repeated = features.expand(count)
    scale = np.array([frame[1] / width, frame[0] / height])
    points, labels = _first(truth, config, keys)
    previous = None
    for round_index in range(config.clicks):
        if replay is not None:
            taken = points.shape[1] if round_index == 0 else points.shape[1] + 1
            points, labels = replay[0][:, :taken], replay[1][:, :taken]
        prompts = Prompts(
            torch.tensor(points * scale, dtype=torch.float32, device=device),
            torch.tensor(labels, dtype=torch.int64, device=device),
            previous,
        )
        prediction = decode(repeated, prompts)
        upsampled = upsample(prediction.logits, (height, width)) if config.mask_choice == "oracle" else None
        choice = _choose(prediction, upsampled, truth, config)
        rows = torch.arange(count, device=device)
        logits = prediction.logits[rows, choice][:, None]
        # Map by map: memory for all of them at once is slow to get from the system.
        masks = torch.cat([upsample(one, (height, width))[:, 0] > 0 for one in logits.split(1)]).cpu().numpy()
        yield Round(prediction, choice, logits, prediction.iou[rows, choice], masks, points, labels, prompts)
        if config.feedback:
            previous = as_prompt(logits)
        if replay is None and round_index + 1 < config.clicks:
            points, labels = _correct(points, labels, truth, masks)


def _check_replay(replay: tuple[np.ndarray, np.ndarray] | None, count: int, config: ProtocolConfig) -> None:
    if (replay is None) != (config.next_click == "own_error"):
        found = "no stored clicks" if replay is None else "stored clicks"
        raise RuacError(f"protocol.next_click: {config.next_click} and {found}; expected replay with stored clicks")
    if replay is not None:
        needed, found = config.clicks + config.box, replay[1].shape
        if found[0] != count or found[1] < needed:
            raise RuacError(f"replay: clicks {list(found)}, expected {needed} of each of {count} objects")


def _first(truth: np.ndarray, config: ProtocolConfig, keys: list[str]) -> tuple[np.ndarray, np.ndarray]:
    if config.box:
        points = boxes_of(torch.from_numpy(truth)).double().numpy()
        return points, np.tile([BOX_FIRST, BOX_SECOND], (len(truth), 1))
    pick = central_pixel if config.first_click == "center" else None
    clicks = [pick(m) if pick else _seeded_pixel(m, key, config.seed) for m, key in zip(truth, keys, strict=True)]
    return np.array(clicks, dtype=float)[:, None], np.full((len(truth), 1), OBJECT)


def _seeded_pixel(mask: np.ndarray, key: str, seed: int) -> tuple[int, int]:
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    candidates = np.flatnonzero(mask)
    y, x = divmod(int(candidates[int.from_bytes(digest[:8], "big") % len(candidates)]), mask.shape[1])
    return x, y


def _choose(prediction: Any, upsampled: Tensor | None, truth: np.ndarray, config: ProtocolConfig) -> Tensor:
    if not config.multimask:
        return torch.zeros(len(truth), dtype=torch.int64, device=prediction.iou.device)
    if upsampled is None:
        return best_candidate(prediction.iou)
    answers, target = upsampled[:, 1:] > 0, torch.from_numpy(truth).to(upsampled.device)[:, None]
    union = (answers | target).sum(dim=(2, 3)).clamp(min=1)
    return ((answers & target).sum(dim=(2, 3)) / union).argmax(dim=1) + 1


def _correct(
    points: np.ndarray, labels: np.ndarray, truth: np.ndarray, masks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add one correction per object; a perfect mask gets its last click again, and after a box padding."""
    added = []
    for index in range(len(truth)):
        label = labels[index, -1]
        again = (*points[index, -1], label) if label in (OBJECT, BACKGROUND) else (0, 0, PADDING)
        added.append(central_correction(truth[index], masks[index]) or again)
    added = np.array(added, dtype=float)  # [N, 3]
    points = np.concatenate([points, added[:, None, :2]], axis=1)
    return points, np.concatenate([labels, added[:, None, 2].astype(labels.dtype)], axis=1)
