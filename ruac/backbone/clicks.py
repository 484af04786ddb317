"""Simulated users of training and fitting: answer, then click at random where the answer is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from torch import Tensor

from ruac.backbone.outputs import as_prompt, best_candidate, of_token, upsample
from ruac.backbone.prompts import Prompts, random_correction


class Answered(Protocol):
    """logits: ``[N, 4, h, w]``. iou: ``[N, 4]``, predicted."""

    logits: Tensor
    iou: Tensor


A = TypeVar("A", bound=Answered)


def answer_and_correct(
    ask: Callable[[Prompts], A], prompts: Prompts, masks: Tensor, *, corrections: int
) -> Iterator[tuple[A, Tensor, Prompts]]:
    """Yield (answer, choice ``[N]``, what was asked) for the first prompts and after each correction.

    The candidate of highest predicted IoU is corrected by one click drawn from its error region (method, sec. 5) and
    fed back as a mask, without gradient. ask: one decoder pass. masks: ``bool [N, S, S]``, the truth. corrections:
    number of clicks after the first prompts; the last answer is not corrected, so that nothing random is drawn for it.
    """
    for step in range(corrections + 1):
        answer = ask(prompts)
        choice = best_candidate(answer.iou)
        yield answer, choice, prompts
        if step < corrections:
            chosen = of_token(answer.logits.detach(), choice)
            points, labels = random_correction(masks, upsample(chosen, masks.shape[-2:])[:, 0] > 0)
            prompts = prompts.add(points, labels, as_prompt(chosen))
