"""The loss of one decoding step: what the head, and a fine-tuned backbone, learn from (method, sec. 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ruac.base.errors import RuacError
from ruac.inference.model import Prediction
from ruac.training.curriculum import Phase
from ruac.training.losses.alignment import ALIGNMENT_MODES, alignment_loss, mean_over_objects
from ruac.training.losses.band import loss_band
from ruac.training.losses.scoring import cross_entropy_score
from ruac.training.losses.segmentation import SegmentationConfig, segmentation_loss
from ruac.uncertainty import HeadConfig, total_uncertainty
from ruac.uncertainty.evidential import EvidentialLossConfig, evidential_loss


@dataclass
class LossConfig:
    """sampled: weight of SAM 2's loss on one draw of the logits (paper), or on the logits of a model
    without a head. kl: weight of the KL term inside beta (paper 1e-8). alignment: weight lambda of
    the alignment loss on the adversarial branch; alignment_mode: attacker_only (paper) or joint
    (release). scoring: weight of the binary cross-entropy of the analytic probability on both
    branches (method, sec. 4, ours); scoring_band: the share of it that is a mean over the object band
    and not over the map, most of which is background. evidential: loss of the evidential head, for no other."""

    sampled: float = 1.0
    kl: float = 1e-8
    alignment: float = 0.1
    alignment_mode: str = "joint"
    scoring: float = 1.0
    scoring_band: float = 0.0
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    evidential: EvidentialLossConfig = field(default_factory=EvidentialLossConfig)

    def validate(self) -> None:
        if self.alignment_mode not in ALIGNMENT_MODES:
            raise RuacError(f"loss.alignment_mode: {self.alignment_mode!r}, expected {' or '.join(ALIGNMENT_MODES)}")
        for name in ("sampled", "kl", "alignment", "scoring"):
            if getattr(self, name) < 0:
                raise RuacError(f"loss.{name}: {getattr(self, name)}, expected at least 0")
        if not 0 <= self.scoring_band <= 1:
            raise RuacError(f"loss.scoring_band: {self.scoring_band}, expected a share in [0, 1]")
        if not (self.sampled or self.scoring or self.evidential.weight):
            raise RuacError("loss.sampled, loss.scoring, loss.evidential.weight: expected at least one above 0")

    def check_head(self, head: HeadConfig) -> None:
        """Raise `RuacError` for a loss that the head cannot be trained with."""
        if (head.posterior == "evidential") != (self.evidential.weight > 0):
            raise RuacError(
                f"loss.evidential.weight: {self.evidential.weight} with head.posterior {head.posterior}; "
                "expected above 0 for evidential, and only there"
            )
        if head.posterior == "evidential" and (self.sampled or self.scoring):
            raise RuacError("loss.sampled, loss.scoring: expected 0 for head.posterior evidential, which has its own")


def objective_terms(
    prediction: Prediction, choice: Tensor, targets: Tensor, config: LossConfig, phase: Phase, *, adversarial: bool
) -> dict[str, Tensor]:
    """Weighted scalar terms of N answers, whose sum is the loss.

    choice: int64 ``[N]``, the token that is returned and scored. targets: ``[N, h, w]`` in [0, 1].
    adversarial: of the adversarial branch, the only one with an alignment term.
    """
    decoded, posterior = prediction.decoded, prediction.posterior
    terms = {}
    if config.sampled > 0:
        logits = prediction.logits if posterior is None else posterior.sample()
        segmentation = segmentation_loss(logits, prediction.iou, decoded.object_score, targets, config.segmentation)
        terms["segmentation"] = config.sampled * sum(segmentation.values()).mean()
    if posterior is None:
        return terms
    if phase.kl > 0 and config.kl > 0:
        terms["kl"] = phase.kl * config.kl * posterior.kl()
    chosen = posterior.select(choice)
    if config.evidential.weight > 0:
        loss = evidential_loss(chosen, targets[:, None], config.evidential)
        terms["evidential"] = config.evidential.weight * mean_over_objects(loss)
    aligned = adversarial and config.alignment > 0
    if config.scoring > 0 or aligned:
        mean, variance = (x[:, 0] for x in chosen.calibrated())  # [N, h, w]
        if config.scoring > 0:
            score = cross_entropy_score(mean, variance, targets)
            terms["scoring"] = config.scoring * _mean_with_band(score, targets, config.scoring_band)
        if aligned:
            uncertainty = total_uncertainty(mean, variance)
            alignment = alignment_loss(chosen.mean[:, 0], targets, uncertainty, mode=config.alignment_mode)
            terms["alignment"] = config.alignment * mean_over_objects(alignment)
    return terms


def _mean_with_band(score: Tensor, targets: Tensor, share: float) -> Tensor:
    """Mean over the map, of which `share` is a mean over the object band; an object without a contour has no band."""
    mean = mean_over_objects(score)
    if share == 0:
        return mean
    band = loss_band(targets)
    in_band = (score * band).sum((1, 2)) / band.sum((1, 2)).clamp_min(1)
    return (1 - share) * mean + share * in_band.mean()
