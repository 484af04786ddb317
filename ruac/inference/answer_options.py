"""What a predictor is asked for beside prompts."""

from __future__ import annotations

from dataclasses import dataclass

from ruac.conformal.bounds import Thresholds
from ruac.inference.second_look import LooksConfig


@dataclass(frozen=True)
class AnswerOptions:
    """How prompts are answered, see `Predictor.predict`.

    multimask: three candidates. logits: masks are logits. decomposed: with aleatoric and epistemic maps. correct: less
    uncertain components. thresholds: of inner and outer masks. coarse: maps of the logits' size, not the picture's.
    """

    multimask: bool = True
    logits: bool = False
    decomposed: bool = False
    correct: bool = False
    looks: LooksConfig | None = None
    thresholds: Thresholds | None = None
    coarse: bool = False
