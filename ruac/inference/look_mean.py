"""All looks together: one mask, probability and uncertainty from the first answer and those that followed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ruac.backbone.outputs import of_token, upsample
from ruac.inference.answer import Maps
from ruac.inference.model import Prediction, UncertainSam
from ruac.inference.second_look import Look, LooksConfig, Question, ask_look
from ruac.inference.views import View
from ruac.uncertainty.look_reader import LookReader
from ruac.uncertainty.maps import binary_entropy, decompose, logit_entropy, logit_uncertainty

LN2 = math.log(2)


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
    picture are left as they are, to the last bit. The model's reader, if it has one, scales the mean's logit. parts:
    with the head's split, which costs a quadrature.
    """
    looks = [look for text in config.looks if (look := ask_look(model, config, question, text)) is not None]
    return combine(question, looks, config, reader=model.reader, parts=parts)


def combine(
    question: Question,
    looks: list[Look],
    config: LooksConfig,
    *,
    reader: LookReader | None = None,
    parts: bool = False,
) -> Looked:
    """Average the first answer and `looks`, and scale the mean by what `reader` makes of them, see `look_again`."""
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
    scales = [None if reader is None else look.log_scales(reader, question) for look in looks]
    for n in sorted({n for look in looks for n in look.index}):
        members = [_first(prediction, choice, n, size)]
        for look, scale in zip(looks, scales, strict=True):
            if n in look.index:
                members.append(_member(look, look.index.index(n), config, scale))
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
    part by the head, where asked for and known. weight: of the window's pixels. log_scale: of a reader, or None."""

    window: tuple[slice, slice]
    logit: Tensor
    plain: Tensor
    known: Callable[[], Tensor] | None
    weight: Tensor
    iou: Tensor
    log_scale: Tensor | None = None


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
        if read := [member for member in members if member.log_scale is not None]:
            self._scale(read, positive, negative)

    def _scale(self, read: list[_Member], positive: Tensor, negative: Tensor) -> None:
        """Scale the mean's logit by the readers' mean; the parts of its entropy keep their shares."""
        weights, scale = torch.zeros_like(positive), torch.zeros_like(positive)
        for member in read:
            weights[member.window] += member.weight
            scale[member.window] += member.weight * member.log_scale
        tiny = torch.finfo(positive.dtype).tiny
        logit = positive.clamp_min(tiny).log() - negative.clamp_min(tiny).log()
        logit = logit * (scale / weights.clamp(min=1)).exp()
        total = logit_uncertainty(logit)
        self.aleatoric = self.aleatoric * (total / self.total.clamp_min(tiny))
        self.probability, self.total = logit.sigmoid(), total


def _first(prediction: Prediction, choice: Tensor, n: int, size: tuple[int, int]) -> _Member:
    one = _of(prediction, choice, n)
    whole = View.whole(size)
    return _Member(
        whole.window, *one(whole), torch.ones(size, device=choice.device), prediction.iou[n, choice[n]].float()
    )


def _member(look: Look, row: int, config: LooksConfig, scales: Tensor | None) -> _Member:
    view, one = look.views[row], _of(look.prediction, look.choice, row)
    weight = view.weight(config.edge).to(look.choice.device)
    scale = None if scales is None else upsample(scales[row : row + 1], weight.shape)[0, 0]
    return _Member(view.window, *one(view), weight, look.prediction.iou[row, look.choice[row]].float(), scale)


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
