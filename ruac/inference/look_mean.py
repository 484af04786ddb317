"""All looks together: one mask, probability and uncertainty from the first answer and those that followed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ruac.backbone.outputs import of_token, upsample
from ruac.inference.answer import Maps
from ruac.inference.model import Prediction, UncertainSam
from ruac.inference.perturbed_look import ask_perturbed
from ruac.inference.second_look import Look, LooksConfig, Question, Shared, ask_look
from ruac.inference.views import View
from ruac.uncertainty.look_reader import LookReader, reread
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


def look_again(
    model: UncertainSam, config: LooksConfig, question: Question, *, parts: bool = False, shared: Shared | None = None
) -> Looked:
    """Look at the objects again, and put all answers together.

    Probabilities are averaged where a window covers the picture, with a soft edge; the mask is where the mean of SAM
    2's own probabilities, without the head's calibration, exceeds 1/2, so that no head moves it. total: entropy of the
    mean probability; ``mutual_information``: what of it is disagreement between looks, ``H(mean) - mean H``;
    ``epistemic`` adds what the head's own posterior is unsure about; ``aleatoric``: the rest. Objects that fill the
    picture are left as they are, to the last bit. The model's reader, if it has one, scales and shifts the mean's
    logit, and so moves masks that are not kept. Of kept masks, total is 1 where the probability contradicts them.
    parts: with the head's split, which costs a quadrature. shared: see `ask_look`.
    """
    asked = [ask_look(model, config, question, text, shared) for text in config.looks]
    looks = [look for look in asked if look is not None]
    looks += [ask_perturbed(model, config, question, perturb) for perturb in model.perturbations]
    return combine(question, looks, config, reader=model.reader, parts=parts)


def combine(
    question: Question,
    looks: list[Look],
    config: LooksConfig,
    *,
    reader: LookReader | None = None,
    parts: bool = False,
) -> Looked:
    """Average the first answer and `looks`, and change the mean by what `reader` makes of them, see `look_again`."""
    size, prediction, choice = question.image.shape[:2], question.prediction, question.choice
    maps = prediction.maps(choice[:, None], size, parts=parts)
    total = maps.total.clone()
    probability = maps.probability.clone()
    aleatoric = maps.parts.get("aleatoric", maps.total).clone()
    disagreement = torch.zeros_like(total)
    iou = of_token(prediction.iou.float(), choice)[:, 0]
    masks, count = question.masks, np.zeros(len(choice), dtype=int)
    if looks and not config.keep_masks:
        masks = masks.copy()
    whole, first = View.whole(size), _Answers.of(prediction, choice, parts=parts)
    further = [_Answers.of(look.prediction, look.choice, look.read(reader, question), parts) for look in looks]
    for n in sorted({n for look in looks for n in look.index}):
        members = [first.member(n, whole, config.edge)]
        for look, answers in zip(looks, further, strict=True):
            if n in look.index:
                row = look.index.index(n)
                members.append(answers.member(row, look.views[row], config.edge))
        mean = _Mean(size, members)
        probability[n, 0], total[n, 0], aleatoric[n, 0] = mean.probability, mean.total, mean.aleatoric
        disagreement[n, 0] = mean.disagreement
        iou[n] = torch.stack([member.iou for member in members]).mean()
        count[n] = len(members) - 1
        if config.keep_masks:
            kept = torch.from_numpy(masks[n]).to(mean.probability.device)
            total[n, 0][(mean.probability > 0.5) != kept] = 1
        else:
            masks[n] = mean.mask.cpu().numpy()
    split = {"aleatoric": aleatoric, "epistemic": (total - aleatoric).clamp(min=0)}
    return Looked(masks, iou, Maps(probability, total, split, {"mutual_information": disagreement}), count)


@dataclass(frozen=True, eq=False)
class _Member:
    """One answer to one object. logit: calibrated, of the window's pixels. plain: SAM 2's own. aleatoric: the head's
    part, where asked for and known. weight: of the window's pixels; the window is a view's, grown, see `View`. reading:
    ``[2, h, w]`` of a reader, or None."""

    window: tuple[slice, slice]
    logit: Tensor
    plain: Tensor
    aleatoric: Tensor | None
    reading: Tensor | None
    weight: Tensor
    iou: Tensor


@dataclass(frozen=True, eq=False)
class _Answers:
    """The same of one look at N objects, on the look's own grid: ``[N, 1, h, w]`` each, reading
    ``[N, 2, h, w]``, iou ``[N]``."""

    logit: Tensor
    plain: Tensor
    aleatoric: Tensor | None
    reading: Tensor | None
    iou: Tensor

    @classmethod
    def of(cls, prediction: Prediction, choice: Tensor, reading: Tensor | None = None, parts: bool = False) -> _Answers:
        aleatoric = None
        if parts and prediction.posterior is not None:
            aleatoric = decompose(*prediction.posterior.select(choice).calibrated())[0]
        iou = of_token(prediction.iou.float(), choice)[:, 0]
        logit, plain = prediction.calibrated_logit(choice), of_token(prediction.decoded.logits, choice)
        return cls(logit, plain, aleatoric, reading, iou)

    def member(self, n: int, view: View, edge: float) -> _Member:
        """Object n, seen through `view`, at the picture's resolution. What a reader says is turned back already."""
        grown = view.grown(edge)

        def placed(maps: Tensor | None) -> Tensor | None:
            return None if maps is None else view.spread(view.place(maps[n : n + 1]), grown)[0, 0]

        reading = self.reading
        if reading is not None:
            size = view.bottom - view.top, view.right - view.left
            reading = view.spread(upsample(reading[n : n + 1], size), grown)[0]
        weight = view.weight(edge).to(self.logit.device)
        return _Member(
            grown.window, placed(self.logit), placed(self.plain), placed(self.aleatoric), reading, weight, self.iou[n]
        )


class _Mean:
    """Weighted mean of an object's members at the picture's size; every map ``[H, W]``, entropies in [0, 1]."""

    def __init__(self, size: tuple[int, int], members: list[_Member]):
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
            known[member.window] += share * (each if member.aleatoric is None else member.aleatoric)
            sign[member.window] += share * torch.tanh(member.plain / 2)  # 2 p - 1, whose sign is exact
        self.probability = positive
        self.total = (binary_entropy(torch.minimum(positive, negative)) / LN2).clamp(max=1)
        self.disagreement = (self.total - entropy).clamp(0, 1)
        self.aleatoric = torch.minimum(known, self.total)
        self.mask = sign > 0
        if read := [member for member in members if member.reading is not None]:
            self._reread(read, positive, negative)

    def _reread(self, read: list[_Member], positive: Tensor, negative: Tensor) -> None:
        """Change the mean's logit by the mean of the readings; the parts of its entropy keep their shares."""
        weights, reading = torch.zeros_like(positive), positive.new_zeros(2, *positive.shape)
        for member in read:
            weights[member.window] += member.weight
            reading[(slice(None), *member.window)] += member.weight * member.reading
        tiny = torch.finfo(positive.dtype).tiny
        logit = positive.clamp_min(tiny).log() - negative.clamp_min(tiny).log()
        logit = reread(logit[None, None], (reading / weights.clamp(min=1))[None])[0, 0]
        total = logit_uncertainty(logit)
        self.aleatoric = self.aleatoric * (total / self.total.clamp_min(tiny))
        self.probability, self.total = logit.sigmoid(), total
        self.mask = torch.where(weights > 0, logit > 0, self.mask)
