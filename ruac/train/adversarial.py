"""Training of the uncertainty head against the attackers, on a frozen backbone (method, sec. 1-4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ruac.attack import AttackConfig, Attacked, build_attacker
from ruac.backbone import Backbone, load_backbone
from ruac.backbone.outputs import as_prompt, upsample
from ruac.data.open import open_dataset
from ruac.data.sample import MaskDataset
from ruac.data.training import TrainingDataConfig, TrainingSet
from ruac.errors import RuacError
from ruac.losses.alignment import ALIGNMENT_MODES, alignment_loss, mean_over_objects
from ruac.losses.scoring import cross_entropy_score
from ruac.losses.segmentation import SegmentationConfig, segmentation_loss, soft_targets
from ruac.model import Prediction, UncertainSam, predict
from ruac.prompts import Prompts, first_prompts, random_correction
from ruac.train.curriculum import CurriculumConfig, Phase
from ruac.train.engine import STREAM_LENGTH, EngineConfig, train
from ruac.train.panels import attack_panel
from ruac.train.validation import ValidationConfig, validate
from ruac.uncertainty import BayesianHead, HeadConfig, total_uncertainty


@dataclass
class LossConfig:
    """sampled: weight of SAM 2's loss on one draw of the logits (paper). kl: weight of the KL term
    inside beta (paper 1e-8). alignment: weight lambda of the alignment loss on the adversarial
    branch; alignment_mode: attacker_only (paper) or joint (release). scoring: weight of the binary
    cross-entropy of the analytic probability on both branches (method, sec. 4, ours)."""

    sampled: float = 1.0
    kl: float = 1e-8
    alignment: float = 0.1
    alignment_mode: str = "joint"
    scoring: float = 1.0
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)

    def validate(self) -> None:
        if self.alignment_mode not in ALIGNMENT_MODES:
            raise RuacError(f"loss.alignment_mode: {self.alignment_mode!r}, expected {' or '.join(ALIGNMENT_MODES)}")
        for name in ("sampled", "kl", "alignment", "scoring"):
            if getattr(self, name) < 0:
                raise RuacError(f"loss.{name}: {getattr(self, name)}, expected at least 0")
        if self.sampled == 0 and self.scoring == 0:
            raise RuacError("loss.sampled, loss.scoring: both are 0, expected at least one above 0")


@dataclass
class TrainConfig:
    """source: data to train on (a folder that `open_dataset` understands), with its splits.
    backbone: name or YAML file. corrections: clicks after the first prompt. head_rate,
    attacker_rate, decoder_rate: learning rates; decoder_rate 0 keeps the whole backbone frozen,
    above 0 the mask decoder's transformer is fine-tuned (paper 1e-6)."""

    source: str = "???"
    out: str = "runs/ruac"
    train_split: str | None = None
    validation_split: str | None = None
    backbone: str = "nano"
    corrections: int = 2
    box_share: float = 0.5
    head_rate: float = 1e-4
    attacker_rate: float = 1e-3
    decoder_rate: float = 0.0
    weight_decay: float = 0.1
    head: HeadConfig = field(default_factory=HeadConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    data: TrainingDataConfig = field(default_factory=TrainingDataConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def validate(self) -> None:
        if self.corrections < 0:
            raise RuacError(f"corrections: {self.corrections}, expected at least 0")
        if not 0 <= self.box_share <= 1:
            raise RuacError(f"box_share: {self.box_share}, expected a share in [0, 1]")
        for name in ("head_rate", "attacker_rate", "decoder_rate", "weight_decay"):
            if getattr(self, name) < 0:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 0")


class AdversarialTask(nn.Module):
    """One optimisation problem: the head descends, the attackers climb through reversed gradients."""

    def __init__(self, backbone: Backbone, config: TrainConfig, validation: MaskDataset | None):
        super().__init__()
        self.config = config
        self.validation = validation
        self.backbone = backbone.freeze()
        if config.decoder_rate > 0:
            backbone.sam.sam_mask_decoder.transformer.requires_grad_(True)
        self.head = BayesianHead(config.head, token_dim=backbone.token_dim, channels=backbone.channels)
        self.attacker = build_attacker(
            config.attack, feature_dim=backbone.token_dim, memory_blocks=backbone.memory_blocks()
        )

    def train(self, mode: bool = True) -> AdversarialTask:
        super().train(mode)
        self.backbone.eval()  # frozen: no dropout, no drop path
        return self

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        config = self.config
        phase = config.curriculum.at(progress)
        masks, valid, images = batch["masks"].float(), batch["valid"], batch["image"]
        with torch.no_grad():
            features = self.backbone.encode(images)
        index = valid.nonzero()[:, 0]
        terms = self._branch(features.gather(index), masks[valid] > 0.5, phase, adversarial=False)
        loss = phase.clean * (terms["total"] - terms.get("kl", 0.0)) + terms.get("kl", 0.0)
        logged = {f"clean/{name}": value for name, value in terms.items()}
        if phase.adversarial > 0:
            attacked = self._attack(images, features.embedding, masks, valid)
            adversarial = self.backbone.encode(attacked.images).gather(index)
            terms = self._branch(adversarial, attacked.masks[valid] > 0.5, phase, adversarial=True)
            loss = loss + phase.adversarial * terms["total"]
            logged |= {f"adversarial/{name}": value for name, value in terms.items()}
            logged |= {f"attack/{name}": value for name, value in attacked.strength.items()}
        return {"loss": loss} | logged

    def _branch(self, features: Any, masks: Tensor, phase: Phase, *, adversarial: bool) -> dict[str, Tensor]:
        """Mean terms over objects and decoding steps; "total" is what the branch adds to the loss.

        features: gathered per object. masks: ``bool [N, S, S]``; prompts are drawn from them.
        """
        config, steps = self.config, self.config.corrections + 1
        side = masks.shape[-1]
        targets = soft_targets(masks, side // 4)
        prompts = first_prompts(masks, box_share=config.box_share)
        sums: dict[str, Tensor] = {}
        for step in range(steps):
            prediction = predict(self.backbone.decode(features, prompts), self.head)
            choice = prediction.iou[:, 1:].argmax(dim=1) + 1
            for name, value in self._terms(prediction, choice, targets, phase, adversarial).items():
                sums[name] = sums.get(name, 0.0) + value / steps
            if step + 1 < steps:
                rows = torch.arange(len(choice), device=choice.device)
                chosen = prediction.logits.detach()[rows, choice][:, None]
                points, labels = random_correction(masks, upsample(chosen, (side, side))[:, 0] > 0)
                prompts = prompts.add(points, labels, as_prompt(chosen))
        sums["total"] = sum(sums.values())
        return sums

    def _terms(
        self, prediction: Prediction, choice: Tensor, targets: Tensor, phase: Phase, adversarial: bool
    ) -> dict[str, Tensor]:
        weights, posterior = self.config.loss, prediction.posterior
        terms = {}
        if weights.sampled > 0:
            segmentation = segmentation_loss(
                posterior.sample(), prediction.iou, prediction.decoded.object_score, targets, weights.segmentation
            )
            terms["segmentation"] = weights.sampled * sum(segmentation.values()).mean()
        if phase.kl > 0 and weights.kl > 0:
            terms["kl"] = phase.kl * weights.kl * posterior.kl()
        aligned = adversarial and weights.alignment > 0
        if weights.scoring > 0 or aligned:
            chosen = posterior.select(choice)
            mean, variance = (x[:, 0] for x in chosen.calibrated())  # [N, h, w]
            if weights.scoring > 0:
                terms["scoring"] = weights.scoring * mean_over_objects(cross_entropy_score(mean, variance, targets))
            if aligned:
                uncertainty = total_uncertainty(mean, variance)
                alignment = alignment_loss(chosen.mean[:, 0], targets, uncertainty, mode=weights.alignment_mode)
                terms["alignment"] = weights.alignment * mean_over_objects(alignment)
        return terms

    def _attack(self, images: Tensor, embedding: Tensor, masks: Tensor, valid: Tensor) -> Attacked:
        climbed = self._climbed(masks, valid) if self.config.attack.kind == "pgd" else None
        return self.attacker(images, embedding, masks, valid, loss_fn=climbed)

    def _climbed(self, masks: Tensor, valid: Tensor) -> Callable[[Tensor], Tensor]:
        """What PGD, an attack without parameters, climbs: the segmentation loss at the first prompt."""
        index, truth = valid.nonzero()[:, 0], masks[valid] > 0.5
        prompts = first_prompts(truth, box_share=self.config.box_share)

        def loss(images: Tensor) -> Tensor:
            decoded = self.backbone.decode(self.backbone.encode(images).gather(index), prompts)
            prediction = predict(decoded, self.head)
            targets = soft_targets(truth, truth.shape[-1] // 4)
            terms = segmentation_loss(
                prediction.logits, prediction.iou, decoded.object_score, targets, self.config.loss.segmentation
            )
            return sum(terms.values()).mean()

        return loss

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Head, attackers and (when fine-tuned) the decoder; vectors without weight decay."""
        parts = {
            "head": (self.head, self.config.head_rate),
            "attacker": (self.attacker, self.config.attacker_rate),
            "decoder": (self.backbone, self.config.decoder_rate),
        }
        groups = []
        for name, (module, rate) in parts.items():
            trained = [p for p in module.parameters() if p.requires_grad]
            for suffix, decays in (("", True), ("_vectors", False)):
                params = [p for p in trained if (p.ndim > 1) is decays]
                if params:
                    decay = self.config.weight_decay if decays else 0.0
                    groups.append({"name": name + suffix, "params": params, "lr": rate, "weight_decay": decay})
        return groups

    def trained_modules(self) -> dict[str, nn.Module]:
        modules = {"head": self.head, "attacker": self.attacker}
        if self.config.decoder_rate > 0:
            modules["transformer"] = self.backbone.sam.sam_mask_decoder.transformer
        return modules

    def validate(self, accelerator: Accelerator) -> dict[str, float]:
        if self.validation is None:
            return {}
        return validate(UncertainSam(self.backbone, self.head), self.validation, self.config.validation, accelerator)

    @torch.no_grad()
    def panels(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Clean and attacked image, mask, error and uncertainty of the batch's first object."""
        first = {name: value[:1] for name, value in batch.items()}
        masks, valid = first["masks"].float(), first["valid"]
        features = self.backbone.encode(first["image"])
        with torch.enable_grad():  # PGD differentiates; the others do not mind
            attacked = self._attack(first["image"], features.embedding, masks, valid)
        index = valid.nonzero()[:1]
        truth = attacked.masks[index[:, 0], index[:, 1]] > 0.5
        prompts: Prompts = first_prompts(truth, box_share=self.config.box_share)
        prediction = predict(self.backbone.decode(self.backbone.encode(attacked.images), prompts), self.head)
        logit = prediction.calibrated_logit(prediction.iou[:, 1:].argmax(dim=1) + 1)
        side = truth.shape[-1]
        return {
            "attack": attack_panel(first["image"][0], attacked.images[0], truth[0], upsample(logit, (side, side))[0, 0])
        }


def train_head(config: TrainConfig, *, resume: bool) -> Path:
    """Train as `config` says; returns the last checkpoint. Raises `RuacError` for unusable input."""
    backbone = load_backbone(config.backbone)
    dataset = open_dataset(config.source, split=config.train_split)
    held_out = open_dataset(config.source, split=config.validation_split) if config.validation_split else None
    seed = config.engine.seed
    data = TrainingSet(dataset, config.data, side=backbone.image_size, seed=seed, length=STREAM_LENGTH)
    torch.manual_seed(seed)  # the head's and the attackers' initial weights
    task = AdversarialTask(backbone, config, held_out)
    return train(task, data, config.engine, config.out, run_config=config, resume=resume)
