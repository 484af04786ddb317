"""SAM 2 with its uncertainty head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ruac.backbone import Backbone, Decoded, Features
from ruac.backbone.precision import expect_full_precision
from ruac.backbone.prompts import Prompts
from ruac.calibration import CalibratedPosterior, Calibrator, Evidence
from ruac.conformal.bounds import Thresholds
from ruac.inference.answer import Maps, answer_maps
from ruac.inference.ensemble import Ensemble
from ruac.uncertainty import Head, MaskPosterior, probit_logit
from ruac.uncertainty.temperature import spreadless

if TYPE_CHECKING:
    from ruac.inference.perturbed_look import Perturbation
    from ruac.inference.reliability import Reader
    from ruac.inference.second_look import LooksConfig
    from ruac.uncertainty.look_reader import LookReader


@dataclass
class Prediction:
    """One answer to N prompted objects.

    logits: ``[N, 4, h, w]``, whose sign is the mask. iou: ``[N, 4]``. decoded: what SAM 2 said.
    posterior: of the logits; None for vanilla SAM 2.
    """

    logits: Tensor
    iou: Tensor
    decoded: Decoded
    posterior: MaskPosterior | None

    def calibrated_logit(self, choice: Tensor) -> Tensor:
        """Logit of the analytic probability of token ``choice[n]``, ``float32 [N, 1, h, w]``.

        The posterior's ``mu / sqrt(1 + pi v / 8)`` (method, sec. 2d); without a posterior SAM 2's
        own logit. Probability and total uncertainty are functions of it.
        """
        if self.posterior is None:
            rows = torch.arange(len(choice), device=choice.device)
            return self.logits[rows, choice][:, None].float()
        return probit_logit(*self.posterior.select(choice).calibrated())

    def maps(self, tokens: Tensor, size: tuple[int, int], *, parts: bool = False) -> Maps:
        """Probability and uncertainty of ``tokens [N, M]`` at the picture's size (H, W), see `answer_maps`."""
        return answer_maps(self, tokens, size, parts=parts)


class AnswerFilter(Protocol):
    """Changes masks after the last click, by what is known of them. Filters act in the order in which a model has them.

    A module whose buffers say how it is set, so that a model's fingerprint tells filters apart.
    """

    def __call__(self, masks: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
        """New masks from masks ``bool [N, H, W]`` and their total uncertainty ``[N, H, W]`` in [0, 1]."""


class UncertainSam(nn.Module):
    """A frozen backbone, a head, and a calibrator of what the head says.

    Without head, calibrator, filters and looks it is vanilla SAM 2, the control of every table. looks: what follows the
    first answer, see `look_mean.look_again`, or None. reader: scales what the looks say. calibrator: of the answer to
    every look. An `Ensemble` in the place of a head asks the backbone several times.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Head | Ensemble | None,
        filters: Sequence[AnswerFilter] = (),
        looks: LooksConfig | None = None,
        reader: LookReader | None = None,
        *,
        calibrator: Calibrator | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.filters = nn.ModuleList(filters)
        self.looks = looks
        self.reader = reader
        self.calibrator = calibrator
        self.perturbations: tuple[Perturbation, ...] = ()  # whose looks follow the others; no part of the weights
        self.thresholds: Thresholds | None = None  # of inner and outer masks, which change no answer
        self.reliability: Reader | None = None  # of what is known of whole masks, for such answers

    @property
    def ensemble(self) -> Ensemble | None:
        return self.head if isinstance(self.head, Ensemble) else None

    @property
    def image_size(self) -> int:
        return self.backbone.image_size

    def encode(self, images: Tensor) -> Features:
        """``[B, 3, S, S]`` normalised images to features. Raises `RuacError` for weights of half precision."""
        expect_full_precision(self.backbone, "backbone")
        return self.ensemble.encode(self.backbone, images) if self.ensemble else self.backbone.encode(images)

    @property
    def changes_masks(self) -> bool:
        """Whether the head has a say in masks or scores, so that they are not the backbone's own."""
        return self.head is not None and self.head.changes_masks

    def decode(self, features: Features, prompts: Prompts, decoded: Decoded | None = None) -> Prediction:
        """Answer N prompts on features gathered per object. decoded: what the backbone says to them, if known."""
        decoded = self.backbone.decode(features, prompts) if decoded is None else decoded
        if self.ensemble:
            return self._asked_again(decoded, features, prompts)
        return self.calibrated(predict(decoded, self.head), features, prompts)

    def calibrated(self, prediction: Prediction, features: Features, prompts: Prompts) -> Prediction:
        """The same answer with the calibrator behind its posterior, if there is one. Masks and scores stay."""
        if self.calibrator is None:
            return prediction
        posterior = spreadless(prediction.decoded) if prediction.posterior is None else prediction.posterior
        evidence = Evidence.of(features, prompts, prediction.logits, prediction.iou)
        return replace(prediction, posterior=CalibratedPosterior.of(posterior, self.calibrator, evidence))

    def complete(
        self, decoded: Decoded, encode: Callable[[str], Features], prompts: Prompts, keys: list[str]
    ) -> Prediction:
        """The answer to N objects of one picture, from the decoder pass after the last click.

        A model that looks more than once does so here and not at every click. encode: features of the picture, ``""``
        as it is or under a key of `flips.FLIPS`. prompts: the last ones. keys: a stable id per object.
        """
        if self.ensemble:
            return self._asked_again(decoded, self.ensemble.gather(encode, len(keys)), prompts, keys)
        prediction = predict(decoded, self.head)
        return prediction if self.calibrator is None else self.calibrated(prediction, encode(""), prompts)

    def _asked_again(
        self, decoded: Decoded, features: Features, prompts: Prompts, keys: Sequence[str] | None = None
    ) -> Prediction:
        posterior = self.ensemble.ask_again(self.backbone, decoded, features, prompts, keys)
        return self.calibrated(Prediction(posterior.mean, decoded.iou, decoded, posterior), features, prompts)

    def looking(self, looks: LooksConfig | None, perturbations: Sequence[Perturbation] = ()) -> UncertainSam:
        """The same backbone, head, reader and calibrator with these looks, and without filters.

        perturbations: also look at the picture changed by each of them; `looks` says how, its own list may be empty.
        """
        model = UncertainSam(self.backbone, self.head, looks=looks, reader=self.reader, calibrator=self.calibrator)
        model.perturbations = tuple(perturbations)
        return model

    def filtered(self, masks: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
        """Masks ``bool [N, H, W]`` after all filters, given their total uncertainty."""
        for each in self.filters:
            masks = each(masks, uncertainty)
        return masks


def predict(decoded: Decoded, head: Head | None) -> Prediction:
    """Attach the head's posterior to a decoder pass; its mean is what masks are taken from."""
    if head is None:
        return Prediction(decoded.logits, decoded.iou, decoded, None)
    expect_full_precision(head, "head")
    posterior = head(decoded)
    return Prediction(posterior.mean, decoded.iou, decoded, posterior)
