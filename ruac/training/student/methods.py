"""What each method learns from: labels, pseudo-labels, or its own answers on weak views."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ruac.base.errors import RuacError
from ruac.training.student.losses import (
    agreement_loss,
    channel_dropout,
    complementary_dropout,
    decayed_share,
    label_loss,
)
from ruac.training.student.models import Segmenter
from ruac.training.student.views import pasted

OWN = ("self_training", "fixmatch", "unimatch_v1", "unimatch_v2")
"""Ways to learn from own answers."""
METHODS = ("supervised", "pseudo", "self_training", "conformal_sam", "fixmatch", "unimatch_v1", "unimatch_v2")
STRONG_VIEWS = {"self_training": 1, "fixmatch": 1, "unimatch_v1": 2, "unimatch_v2": 2}


@dataclass
class StagesConfig:
    """start: epoch at which stage II begins. share, decay: of its weight lambda, see `decayed_share`. weight: of
    pseudo-labels in stage I (ConformalSAM, eq. 2)."""

    start: int = 60
    share: float = 0.5
    decay: float = 5.0
    weight: float = 1.0

    def validate(self) -> None:
        if self.start < 0 or self.decay < 0 or self.weight < 0:
            raise RuacError("stages: start, decay and weight expected to be at least 0")
        if not 0 <= self.share <= 1:
            raise RuacError(f"stages.share: {self.share}, expected a share in [0, 1]")


@dataclass
class ConsistencyConfig:
    """threshold: smallest confidence of an own label that is learnt. dropout: of UniMatch V1's feature stream. ema: of
    UniMatch V2's teacher, at most."""

    threshold: float = 0.95
    dropout: float = 0.5
    ema: float = 0.996

    def validate(self) -> None:
        for name in ("threshold", "dropout", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise RuacError(f"consistency.{name}: {getattr(self, name)}, expected a number in [0, 1)")


@dataclass(frozen=True)
class Plan:
    """Stage I and stage II of a method: what is learnt of unlabelled pictures; None for nothing (or no stage II)."""

    first: str | None
    second: str | None
    epochs: int
    stages: StagesConfig

    @classmethod
    def of(cls, method: str, then: str, epochs: int, stages: StagesConfig) -> Plan:
        """supervised: labels alone. pseudo: pseudo-labels throughout. self_training: labels alone, then own answers.
        conformal_sam: pseudo-labels, then own answers in the way `then`. Others: that way throughout."""
        first = {"supervised": None, "self_training": None, "conformal_sam": "pseudo"}.get(method, method)
        second = {"self_training": "self_training", "conformal_sam": then}.get(method)
        return cls(first, second, epochs, stages)

    @property
    def kinds(self) -> set[str]:
        started = self.second is not None and self.stages.start < self.epochs
        return ({self.first} | ({self.second} if started else set())) - {None}

    def at(self, progress: float) -> tuple[str | None, float, float]:
        """What is learnt of unlabelled pictures at `progress` in [0, 1), and weights of labelled and unlabelled loss.

        Pseudo-labels: 1 and `weight` (eq. 2). Own answers throughout: one half each (UniMatch). Stage II: 1 - lambda
        and lambda (eq. 5).
        """
        epoch = progress * self.epochs
        if self.second is not None and epoch >= self.stages.start:
            share = decayed_share(
                epoch, start=self.stages.start, end=self.epochs, share=self.stages.share, decay=self.stages.decay
            )
            return self.second, 1 - share, share
        if self.first is None:
            return None, 1.0, 0.0
        return (self.first, 1.0, self.stages.weight) if self.first == "pseudo" else (self.first, 0.5, 0.5)


def method_losses(
    kind: str | None, model: Segmenter, guide: Segmenter, batch: dict[str, Tensor], config: ConsistencyConfig
) -> dict[str, Tensor]:
    """``labelled`` and, but for None, ``unlabelled`` loss of a batch of `StudentStream`.

    kind: None, pseudo or one of `OWN`. guide: gives the labels of weak views; the model itself, or UniMatch V2's
    teacher. All views go through the model in one pass.
    """
    image, labels = batch["image"], batch["labels"]
    count = len(image)
    if kind is None:
        return {"labelled": label_loss(model(image), labels)}
    if kind == "pseudo":
        logits = model(torch.cat([image, batch["weak"]]))
        return {
            "labelled": label_loss(logits[:count], labels),
            "unlabelled": label_loss(logits[count:], batch["pseudo"]),
        }
    target, confidence = own_labels(guide, batch["weak"])
    views = []  # picture, label, confidence
    for view in range(1, STRONG_VIEWS[kind] + 1):
        strong, box = batch[f"strong{view}"], batch[f"box{view}"]
        together = (strong, target, confidence)
        views.append(together if kind == "self_training" else tuple(pasted(values, box) for values in together))
    if kind == "unimatch_v1":
        views.append((batch["weak"], target, confidence))
    maps = model.encode(torch.cat([image, *(view[0] for view in views)]))
    if kind == "unimatch_v1":
        maps = _disturbed(maps, {3: channel_dropout([m[:count] for m in maps], config.dropout)}, count)
    elif kind == "unimatch_v2":
        maps = _disturbed(maps, dict(enumerate(complementary_dropout([m[:count] for m in maps]), start=1)), count)
    logits = model.decode(maps, image.shape[-1]).split(count)
    threshold = 0.0 if kind == "self_training" else config.threshold
    terms = [agreement_loss(own, view[1], view[2], threshold) for own, view in zip(logits[1:], views, strict=True)]
    shares = (0.25, 0.25, 0.5) if kind == "unimatch_v1" else (1 / len(terms),) * len(terms)
    unlabelled = sum(share * term for share, term in zip(shares, terms, strict=True))
    return {
        "labelled": label_loss(logits[0], labels),
        "unlabelled": unlabelled,
        "sure": (confidence >= threshold).float().mean(),
    }


@torch.no_grad()
def own_labels(model: Segmenter, images: Tensor) -> tuple[Tensor, Tensor]:
    """Most probable class and its probability, ``[B, S, S]``, by the model in eval mode."""
    training = model.training
    model.eval()
    confidence, label = model(images).softmax(1).max(1)
    model.train(training)
    return label, confidence


def _disturbed(maps: list[Tensor], factors: dict[int, list[Tensor]], count: int) -> list[Tensor]:
    """Every part of `count` pictures times its factors, those not named as they are."""
    disturbed = []
    for place, whole in enumerate(maps):
        parts = list(whole.split(count))
        for part, factor in factors.items():
            parts[part] = parts[part] * factor[place]
        disturbed.append(torch.cat(parts))
    return disturbed
