"""A second look at an object: cut out around the answer, asked again, averaged with it (method, sec. 7)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ruac.backbone.outputs import as_prompt, best_candidate, of_token
from ruac.backbone.prompts import PADDING, Prompts
from ruac.base.errors import RuacError
from ruac.data.augment import prepare
from ruac.inference.answer import Maps
from ruac.inference.model import Prediction, UncertainSam, predict
from ruac.inference.views import View, around
from ruac.uncertainty.maps import binary_entropy, decompose, logit_entropy

LN2 = math.log(2)
ENCODED = 8  # most windows encoded at a time


@dataclass
class LooksConfig:
    """Which looks follow the first answer; all of them weigh alike.

    looks: ``zoom`` (a window around the answer), ``flip`` (the picture mirrored), ``zoom+flip``; ``zoom:2.4`` with
    another margin. margin, pad: side of the window, in extents of mask and clicks, plus a share of the picture's side.
    largest: windows that exceed this share of the picture's side are not looked at. edge: share of a window over which
    its weight rises from 0. keep_masks: leave the first masks as they are and change their probability and uncertainty
    only. feedback: show the first answer's mask to the second look.
    """

    looks: list[str] = field(default_factory=lambda: ["zoom"])
    margin: float = 1.6
    pad: float = 0.09
    largest: float = 0.86
    edge: float = 0.1
    keep_masks: bool = False
    feedback: bool = True

    def validate(self) -> None:
        if not self.looks:
            raise RuacError("looks: expected at least one, such as zoom, flip or zoom+flip")
        if not 1 <= self.margin < math.inf:
            raise RuacError(f"margin: {self.margin}, expected at least 1")
        for look in self.looks:
            self.parse(look)
        if len(set(self.looks)) < len(self.looks):
            raise RuacError(f"looks: {self.looks}, expected each at most once")
        for name in ("pad", "largest", "edge"):
            if not 0 <= getattr(self, name) <= 1:
                raise RuacError(f"{name}: {getattr(self, name)}, expected a share in [0, 1]")

    def parse(self, look: str) -> tuple[float | None, bool]:
        """Margin of the window, None for the whole picture, and whether it is mirrored.

        Raises `RuacError` for what is no look.
        """
        zoom, *mirror = look.split("+")
        name, _, factor = zoom.partition(":")
        if look == "flip":
            return None, True
        try:
            margin = float(factor) if factor else self.margin
        except ValueError:
            margin = 0.0
        if name != "zoom" or mirror not in ([], ["flip"]) or not 1 <= margin < math.inf or zoom.endswith(":"):
            raise RuacError(f"looks: {look!r}, expected zoom, flip or zoom+flip; zoom:2.4 sets its margin, at least 1")
        return margin, bool(mirror)


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
    """A further answer to some of the objects. index: ``[M]`` which. views: a window each. choice: ``[M]``."""

    index: list[int]
    views: list[View]
    prediction: Prediction
    choice: Tensor


@dataclass(frozen=True, eq=False)
class Looked:
    """All looks together. masks: ``bool [N, H, W]``. iou: ``[N]``, the mean of the predicted ones. maps: of one mask of
    each object, with parts ``aleatoric`` and ``epistemic`` and its own score ``mutual_information``. looks: how many
    each object got beside the first, ``[N]``."""

    masks: np.ndarray
    iou: Tensor
    maps: Maps
    looks: np.ndarray


def look_again(model: UncertainSam, config: LooksConfig, question: Question, *, parts: bool = False) -> Looked:
    """Look at the objects again, and put all answers together.

    Probabilities are averaged where a window covers the picture, with a soft edge; the mask is where the mean of SAM
    2's own probabilities, without the head's calibration, exceeds 1/2, so that no head moves it. total: entropy of the
    mean probability; ``mutual_information``: what of it is disagreement between looks, ``H(mean) - mean H``;
    ``epistemic`` adds what the head's own posterior is unsure about; ``aleatoric``: the rest. Objects that fill the
    picture are left as they are, to the last bit. parts: with the head's split, which costs a quadrature.
    """
    looks = [look for text in config.looks if (look := ask_look(model, config, question, text)) is not None]
    return combine(question, looks, config, parts=parts)


def ask_look(model: UncertainSam, config: LooksConfig, question: Question, look: str) -> Look | None:
    """Ask one look of the objects that it is for; None if it is for none. Equal windows are encoded once."""
    margin, flip = config.parse(look)
    views = [_view(question, n, margin, flip, config) for n in range(len(question.choice))]
    index = [n for n, view in enumerate(views) if view is not None]
    if not index:
        return None
    views = [views[n] for n in index]
    distinct = {view: number for number, view in enumerate(dict.fromkeys(views))}
    device = question.choice.device
    blocks = []
    windows = list(distinct)
    for start in range(0, len(windows), ENCODED):
        pixels = [prepare(view.cut(question.image), model.image_size) for view in windows[start : start + ENCODED]]
        blocks.append(model.encode(torch.cat(pixels).to(device)))
    of_view = torch.tensor([distinct[view] for view in views], device=device)
    features = type(blocks[0])(
        torch.cat([block.embedding for block in blocks]),
        [torch.cat(level) for level in zip(*(block.high_res for block in blocks), strict=True)],
    ).gather(of_view)
    asked = [_prompts(question, n, config) for n in index]
    asked = [view.ask(prompts, model.image_size) for view, prompts in zip(views, asked, strict=True)]
    masks = [prompts.mask_logits for prompts in asked]
    prompts = Prompts(
        torch.cat([each.points for each in asked]),
        torch.cat([each.labels for each in asked]),
        None if masks[0] is None else torch.cat(masks),
    )
    prediction = predict(model.backbone.decode(features, prompts), model.head)
    single = question.choice[index] == 0  # the single mask was asked for: no choice among candidates
    choice = torch.where(single, torch.zeros_like(single, dtype=torch.int64), best_candidate(prediction.iou))
    return Look(index, views, prediction, choice)


def combine(question: Question, looks: list[Look], config: LooksConfig, *, parts: bool = False) -> Looked:
    """Average the first answer and `looks`, see `look_again`."""
    size, prediction, choice = question.image.shape[:2], question.prediction, question.choice
    maps = prediction.maps(choice[:, None], size, parts=parts)
    total = maps.total.clone()
    probability = maps.probability.clone()
    aleatoric = maps.parts.get("aleatoric", maps.total).clone()
    disagreement = torch.zeros_like(total)
    iou = prediction.iou.float().gather(1, choice[:, None])[:, 0].clone()
    masks, count = question.masks, np.zeros(len(choice), dtype=int)
    if looks and not config.keep_masks:
        masks = masks.copy()
    for n in sorted({n for look in looks for n in look.index}):
        members = [_first(prediction, choice, n, size)]
        for look in looks:
            if n in look.index:
                members.append(_member(look, look.index.index(n), config))
        mean = _Mean(size, members, parts)
        probability[n, 0], total[n, 0], aleatoric[n, 0] = mean.probability, mean.total, mean.aleatoric
        disagreement[n, 0] = mean.disagreement
        iou[n] = torch.stack([member.iou for member in members]).mean()
        count[n] = len(members) - 1
        if not config.keep_masks:
            masks[n] = mean.mask.cpu().numpy()
    split = {"aleatoric": aleatoric, "epistemic": (total - aleatoric).clamp(min=0)}
    return Looked(masks, iou, Maps(probability, total, split, {"mutual_information": disagreement}), count)


@dataclass(frozen=True, eq=False)
class _Member:
    """One answer to one object. logit: calibrated, of the window's pixels. plain: SAM 2's own. known: its aleatoric
    part by the head, where asked for and known. weight: of the window's pixels."""

    window: tuple[slice, slice]
    logit: Tensor
    plain: Tensor
    known: Callable[[], Tensor] | None
    weight: Tensor
    iou: Tensor


class _Mean:
    """Weighted mean of an object's members at the picture's size; every map ``[H, W]``, entropies in [0, 1]."""

    def __init__(self, size: tuple[int, int], members: list[_Member], parts: bool):
        blank = members[0].logit.new_zeros(size)
        weights, positive, negative, entropy, known, sign = (blank.clone() for _ in range(6))
        for member in members:
            weights[member.window] += member.weight
        for member in members:
            share = member.weight / weights[member.window]
            positive[member.window] += share * member.logit.sigmoid()
            negative[member.window] += share * (-member.logit).sigmoid()  # 1 - p has no digits left where p is near 1
            each = logit_entropy(member.logit) / LN2
            entropy[member.window] += share * each
            known[member.window] += share * (member.known() if parts and member.known else each)
            sign[member.window] += share * torch.tanh(member.plain / 2)  # 2 p - 1, whose sign is exact
        self.probability = positive
        self.total = (binary_entropy(torch.minimum(positive, negative)) / LN2).clamp(max=1)
        self.disagreement = (self.total - entropy).clamp(0, 1)
        self.aleatoric = torch.minimum(known, self.total)
        self.mask = sign > 0


def _first(prediction: Prediction, choice: Tensor, n: int, size: tuple[int, int]) -> _Member:
    one = _of(prediction, choice, n)
    whole = View.whole(size)
    return _Member(
        whole.window, *one(whole), torch.ones(size, device=choice.device), prediction.iou[n, choice[n]].float()
    )


def _member(look: Look, row: int, config: LooksConfig) -> _Member:
    view, one = look.views[row], _of(look.prediction, look.choice, row)
    weight = view.weight(config.edge).to(look.choice.device)
    return _Member(view.window, *one(view), weight, look.prediction.iou[row, look.choice[row]].float())


def _of(prediction: Prediction, choice: Tensor, n: int) -> Callable[[View], tuple]:
    """Calibrated and plain logit of object n at a view's size, and a function that gives its aleatoric part."""
    row = slice(n, n + 1)
    calibrated = prediction.calibrated_logit(choice)[row]
    plain = of_token(prediction.decoded.logits[row], choice[row])
    known = None
    if prediction.posterior is not None:
        posterior = prediction.posterior.select(choice)

        def split(view: View) -> Tensor:
            mean, variance = posterior.calibrated()
            return view.place(decompose(mean[row], variance[row])[0])[0, 0]

        known = split
    return lambda view: (
        view.place(calibrated)[0, 0],
        view.place(plain)[0, 0],
        None if known is None else lambda: known(view),
    )


def _view(question: Question, n: int, margin: float | None, flip: bool, config: LooksConfig) -> View | None:
    size = question.image.shape[:2]
    if margin is None:
        return View.whole(size, flip=flip)
    prompts = question.prompts
    known = prompts.labels[n] != PADDING
    points = prompts.points[n][known].double().cpu().numpy() * _pixels(question)
    return around(points, question.masks[n], margin=margin, pad=config.pad, largest=config.largest, flip=flip)


def _pixels(question: Question) -> np.ndarray:
    """Picture pixels per model pixel, (x, y)."""
    side = 4 * question.prediction.logits.shape[-1]
    height, width = question.image.shape[:2]
    return np.array([width / side, height / side])


def _prompts(question: Question, n: int, config: LooksConfig) -> Prompts:
    """What object n is asked again: its clicks, and its mask if there is feedback."""
    row = slice(n, n + 1)
    previous = None
    if config.feedback:
        previous = as_prompt(of_token(question.prediction.decoded.logits[row], question.choice[row])).float()
    return Prompts(question.prompts.points[row], question.prompts.labels[row], previous)
