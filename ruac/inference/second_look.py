"""A second look at an object: cut out around the answer, asked again, averaged with it (method, sec. 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from kornia.filters import sobel
from torch import Tensor

from ruac.backbone import Backbone
from ruac.backbone.outputs import Decoded, Features, as_prompt, best_candidate, of_token
from ruac.backbone.prompts import PADDING, Prompts
from ruac.base.errors import RuacError
from ruac.data.augment import prepare
from ruac.inference.model import Prediction, UncertainSam
from ruac.inference.views import View, around
from ruac.uncertainty.look_reader import LookReader, SeenAnswer, look_inputs

ENCODED = 8  # most windows encoded at a time
AUTO = 0.55
"""Largest window of ``auto``, as a share of the picture's side: two thirds of a zoom's looks, and 87 % of what it adds
to J on source validation (docs/results/looks.md)."""


@dataclass
class LooksConfig:
    """Which looks follow the first answer; all of them weigh alike.

    looks: ``zoom`` (a window around the answer), ``flip`` (the picture mirrored), ``zoom+flip``; ``zoom:2.4`` with
    another margin; ``auto``, a zoom of those objects alone to which it brings most, see `AUTO`. margin, pad: side of
    the window, in extents of mask and clicks, plus a share of the picture's side. largest: windows that exceed this
    share of the picture's side are not looked at. edge: share of a window's sides over which its weight falls to 0
    beyond it, where what it says at its border goes on.
    keep_masks: leave the first masks as they are and change their probability and uncertainty only; where the looks
    together contradict a mask its uncertainty is 1. feedback: show the first answer's mask to the second look; by
    default to backbones that were trained on masks of their own, and not to those that were trained on boxes alone.
    """

    looks: list[str] = field(default_factory=lambda: ["zoom"])
    margin: float = 1.6
    pad: float = 0.09
    largest: float = 0.86
    edge: float = 0.25
    keep_masks: bool = False
    feedback: bool | None = field(default=None, metadata={"later": True})

    def validate(self) -> None:
        if not self.looks:
            raise RuacError("looks: expected at least one, such as zoom, auto, flip or zoom+flip")
        if not 1 <= self.margin < math.inf:
            raise RuacError(f"margin: {self.margin}, expected at least 1")
        for look in self.looks:
            self.parse(look)
        if len(set(self.looks)) < len(self.looks):
            raise RuacError(f"looks: {self.looks}, expected each at most once")
        for name in ("pad", "largest", "edge"):
            if not 0 <= getattr(self, name) <= 1:
                raise RuacError(f"{name}: {getattr(self, name)}, expected a share in [0, 1]")

    def shows_mask(self, body: Backbone) -> bool:
        """Whether looks of that backbone see the first answer's mask."""
        return not body.boxes_only if self.feedback is None else self.feedback

    def parse(self, look: str) -> tuple[float | None, bool]:
        """Margin of the window, None for the whole picture, and whether it is mirrored.

        Raises `RuacError` for what is no look.
        """
        zoom, *mirror = look.split("+")
        name, _, factor = zoom.partition(":")
        if look == "flip":
            return None, True
        if look == "auto":
            return self.margin, False
        try:
            margin = float(factor) if factor else self.margin
        except ValueError:
            margin = 0.0
        if name != "zoom" or mirror not in ([], ["flip"]) or not 1 <= margin < math.inf or zoom.endswith(":"):
            raise RuacError(
                f"looks: {look!r}, expected zoom, flip, zoom+flip or auto; zoom:2.4 sets its margin, at least 1"
            )
        return margin, bool(mirror)


def looks_config(looks: LooksConfig | Sequence[str] | None) -> LooksConfig | None:
    """Looks as a user names them, checked; raises `RuacError` for what is none."""
    if looks is None or isinstance(looks, LooksConfig):
        config = looks
    else:
        config = LooksConfig(looks=[looks] if isinstance(looks, str) else list(looks))
    if config is not None:
        config.validate()
    return config


@dataclass(frozen=True, eq=False)
class Question:
    """What was asked about N objects of a picture, and the first answer.

    image: ``uint8 [H, W, 3]``. prompts: in model pixels of the whole picture. prediction: of them. choice: ``[N]``
    token that is returned. masks: ``bool [N, H, W]`` of it.
    """

    image: np.ndarray
    prompts: Prompts
    prediction: Prediction
    choice: Tensor
    masks: np.ndarray


@dataclass(frozen=True, eq=False)
class Look:
    """A further answer to some of the objects.

    name: as the config has it. index: ``[M]`` which. views: a window each. choice: ``[M]``. edges: ``[M, 1, h, w]``,
    strength of the image's edges in each window, for a reader.
    """

    name: str
    index: list[int]
    views: list[View]
    prediction: Prediction
    choice: Tensor
    edges: Tensor

    def read(self, reader: LookReader | None, question: Question) -> Tensor | None:
        """What `reader` makes of this and the first answer, on each window's grid ``[M, 2, h, w]``, turned back.

        None without a reader, and of a look that it was not fitted to.
        """
        if reader is None or reader.config.look != ("zoom" if self.name == "auto" else self.name):
            return None
        return reader.read(self.reader_inputs(question))

    def reader_inputs(self, question: Question) -> Tensor:
        """`look_inputs` of both answers on each window's grid, ``[M, C, h, w]``."""
        first, logits = question.prediction.decoded, self.prediction.decoded.logits
        seen = [
            view.resample(first.logits[n].float(), logits.shape[-2:])
            for n, view in zip(self.index, self.views, strict=True)
        ]
        turned = [one.flip(-1) if view.flip else one for one, view in zip(logits, self.views, strict=True)]
        share = torch.tensor([view.share for view in self.views], device=logits.device)
        return look_inputs(
            SeenAnswer(torch.stack(seen), first.iou[self.index], question.choice[self.index]),
            SeenAnswer(torch.stack(turned), self.prediction.iou, self.choice),
            share,
            self.edges,
        )


Shared = dict[tuple[Any, ...], tuple[Features, Decoded, Tensor]]
"""What backbones alone said in further looks at a picture's objects: features of each window, answer, edges."""


def ask_look(
    model: UncertainSam, config: LooksConfig, question: Question, look: str, shared: Shared | None = None
) -> Look | None:
    """Ask one look of the objects that it is for; None if it is for none. Equal windows are encoded once.

    shared: kept between models that are asked about the same first answer (the same `Decoded`, not an equal one). Those
    of one backbone whose heads change no mask hear the same from it, and only the first asks; ensembles ask themselves.
    """
    margin, flip = config.parse(look)
    body, frame = model.backbone, model.backbone.frame(question.image.shape[:2])
    largest = min(AUTO, config.largest) if look == "auto" else config.largest
    views = [_view(question, n, margin, flip, config.pad, largest, frame) for n in range(len(question.choice))]
    index = [n for n, view in enumerate(views) if view is not None]
    if not index:
        return None
    views = [views[n] for n in index]
    # A window is stretched to the model's square, also by a model that pads pictures, so that all share one grid.
    seen = frame if margin is None else (body.image_size, body.image_size)
    first = question.prediction.decoded
    key = id(body), id(first), tuple(views), config.shows_mask(body)
    sharing = shared is not None and not model.changes_masks and model.ensemble is None
    if not sharing or key not in shared:
        features, edges = _encoded(model, question, views, seen)
        prediction, choice = answer_to(model, config, question, index, views, features, seen)
        if sharing:
            shared[key] = features, prediction.decoded, edges
    else:
        features, decoded, edges = shared[key]
        prediction, choice = answer_to(model, config, question, index, views, features, seen, decoded)
    return Look(look, index, views, prediction, choice, edges)


def _encoded(
    model: UncertainSam, question: Question, views: list[View], seen: tuple[int, int]
) -> tuple[Features, Tensor]:
    """Features of what each view shows, and its edges ``[M, 1, h, w]``, turned back."""
    cells = seen[0] // model.backbone.mask_stride, seen[1] // model.backbone.mask_stride
    distinct = {view: number for number, view in enumerate(dict.fromkeys(views))}
    blocks, edges = [], []
    windows = list(distinct)
    for start in range(0, len(windows), ENCODED):
        pixels = [prepare(view.cut(question.image), seen) for view in windows[start : start + ENCODED]]
        pixels = torch.cat(pixels).to(question.choice.device)
        blocks.append(model.encode(pixels))
        edges.append(edges_of(pixels, cells))
    of_view = torch.tensor([distinct[view] for view in views], device=question.choice.device)
    strength = torch.cat(edges)[of_view]
    strength = torch.stack([one.flip(-1) if view.flip else one for one, view in zip(strength, views, strict=True)])
    return Features.joined(blocks).gather(of_view), strength


def answer_to(
    model: UncertainSam,
    config: LooksConfig,
    question: Question,
    index: list[int],
    views: list[View],
    features: Features,
    seen: tuple[int, int],
    decoded: Decoded | None = None,
) -> tuple[Prediction, Tensor]:
    """What a model says of the objects `index`, each through its view, and the token that it returns, ``[M]``.

    features: ``[M, ...]`` of what is seen, which fills `seen` rows and columns of model pixels. decoded: what its
    backbone says to the same, where it was asked before.
    """
    frame = model.backbone.frame(question.image.shape[:2])
    cells = seen[0] // model.backbone.mask_stride, seen[1] // model.backbone.mask_stride
    shown = config.shows_mask(model.backbone)
    asked = [_prompts(question, n, shown) for n in index]
    asked = [view.ask(prompts, frame, seen, cells) for view, prompts in zip(views, asked, strict=True)]
    masks = [prompts.mask_logits for prompts in asked]
    prompts = Prompts(
        torch.cat([each.points for each in asked]),
        torch.cat([each.labels for each in asked]),
        None if masks[0] is None else torch.cat(masks),
    )
    prediction = model.decode(features, prompts, decoded)
    single = question.choice[index] == 0  # the single mask was asked for: no choice among candidates
    return prediction, torch.where(single, torch.zeros_like(single, dtype=torch.int64), best_candidate(prediction.iou))


def edges_of(pixels: Tensor, cells: tuple[int, int]) -> Tensor:
    """Strength of the edges of normalised images ``[B, 3, h, w]``, in [0, 1]: ``[B, 1, *cells]``."""
    return F.adaptive_avg_pool2d(sobel(pixels.mean(1, keepdim=True)), cells).tanh()


def _view(
    question: Question, n: int, margin: float | None, flip: bool, pad: float, largest: float, frame: tuple[int, int]
) -> View | None:
    size = question.image.shape[:2]
    if margin is None:
        return View.whole(size, flip=flip)
    prompts = question.prompts
    known = prompts.labels[n] != PADDING
    points = prompts.points[n][known].double().cpu().numpy() * (size[1] / frame[1], size[0] / frame[0])
    return around(points, question.masks[n], margin=margin, pad=pad, largest=largest, flip=flip)


def _prompts(question: Question, n: int, shown: bool) -> Prompts:
    """What object n is asked again: its clicks, and its mask if that is shown."""
    row = slice(n, n + 1)
    previous = None
    if shown:
        previous = as_prompt(of_token(question.prediction.decoded.logits[row], question.choice[row])).float()
    return Prompts(question.prompts.points[row], question.prompts.labels[row], previous)
