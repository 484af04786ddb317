"""Training of the uncertainty head against the attackers, on a frozen backbone (method, sec. 1-4), and its controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ruac.backbone import Backbone, load_backbone
from ruac.backbone.clicks import answer_and_correct
from ruac.backbone.lora import LoraConfig, add_lora
from ruac.backbone.outputs import Features, best_candidate, upsample
from ruac.backbone.prompts import Prompts, first_prompts
from ruac.base.errors import RuacError
from ruac.data.open import open_dataset
from ruac.data.sample import MaskDataset
from ruac.data.training import TrainingDataConfig, TrainingSet
from ruac.inference.model import UncertainSam, predict
from ruac.training.attack import OBJECTIVES, AttackConfig, Attacked, build_attacker
from ruac.training.curriculum import CurriculumConfig, Phase
from ruac.training.engine import STREAM_LENGTH, EngineConfig, train
from ruac.training.losses.segmentation import segmentation_loss, soft_targets
from ruac.training.objective import LossConfig, objective_terms
from ruac.training.panels import attack_panel
from ruac.training.validation import ValidationConfig, validate
from ruac.uncertainty import BayesianConfig, HeadConfig, build_head
from ruac.uncertainty.laplace import LaplaceHead


@dataclass
class TrainConfig:
    """source: data to train on (a folder that `open_dataset` understands), with its splits.
    backbone: name or YAML file. corrections: clicks after the first prompt. head_rate,
    attacker_rate, decoder_rate, lora_rate: learning rates; decoder_rate 0 keeps the mask decoder
    frozen, above 0 its transformer is fine-tuned (paper 1e-6), or all of it where there is no head.
    lora: of the image encoder (rank 0: none)."""

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
    lora_rate: float = 1e-4
    weight_decay: float = 0.1
    head: HeadConfig = field(default_factory=BayesianConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
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
        for name in ("head_rate", "attacker_rate", "decoder_rate", "lora_rate", "weight_decay"):
            if getattr(self, name) < 0:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 0")
        if self.head.posterior == "temperature":
            raise RuacError("head.posterior: temperature is fitted to a frozen model; expected one that is trained")
        self.loss.check_head(self.head)
        if climbed := OBJECTIVES[self.attack.objective]:
            if self.tunes_backbone or self.head.posterior == "none":
                raise RuacError(f"attack.objective: {self.attack.objective}, expected total where a backbone is tuned")
            if getattr(self.loss, climbed) == 0:
                raise RuacError(f"attack.objective: {self.attack.objective}, expected loss.{climbed} above 0")
        if not self.tunes_backbone:
            if self.head.posterior == "none":
                raise RuacError(
                    "head.posterior: none and a frozen backbone, expected decoder_rate or lora.rank above 0"
                )
            if self.head.posterior == "laplace" and not self.head.logit_scale:
                raise RuacError("head.logit_scale: expected true for laplace, which has no other trained parameter")

    @property
    def tunes_backbone(self) -> bool:
        """Whether weights of the backbone are trained, which a head-only export would lose."""
        return self.decoder_rate > 0 or self.lora.rank > 0


class AdversarialTask(nn.Module):
    """One optimisation problem: the head descends, the attackers climb through reversed gradients."""

    def __init__(self, backbone: Backbone, config: TrainConfig, validation: MaskDataset | None):
        super().__init__()
        self.config = config
        self.validation = validation
        self.backbone = backbone.freeze()
        self.head = build_head(config.head, token_dim=backbone.token_dim, channels=backbone.channels)
        self.tuned: dict[str, nn.Module] = {}  # what is trained of the backbone, of which it is a part
        if config.decoder_rate > 0:
            decoder = backbone.sam.sam_mask_decoder
            self.tuned |= {"decoder": decoder} if self.head is None else {"transformer": decoder.transformer}
        if config.lora.rank > 0:
            self.tuned["lora"] = add_lora(backbone, config.lora)
        for module in self.tuned.values():
            module.requires_grad_(True)
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
        features = self.backbone.encode(images)
        index = valid.nonzero()[:, 0]
        terms = self._branch(features.gather(index), masks[valid] > 0.5, phase, adversarial=False)
        loss = phase.clean * (terms["total"] - terms.get("kl", 0.0)) + terms.get("kl", 0.0)
        logged = {f"clean/{name}": value for name, value in terms.items()}
        if phase.adversarial > 0:
            attacked = self._attack(images, features.embedding, masks, valid)
            adversarial = self._encode_attacked(attacked.images).gather(index)
            terms = self._branch(adversarial, attacked.masks[valid] > 0.5, phase, adversarial=True)
            loss = loss + phase.adversarial * terms["total"]
            logged |= {f"adversarial/{name}": value for name, value in terms.items()}
            logged |= {f"attack/{name}": value for name, value in attacked.strength.items()}
        return {"loss": loss} | logged

    def _branch(self, features: Features, masks: Tensor, phase: Phase, *, adversarial: bool) -> dict[str, Tensor]:
        """Mean terms over objects and decoding steps; "total" is what the branch adds to the loss.

        features: gathered per object. masks: ``bool [N, S, S]``; prompts are drawn from them.
        """
        config, steps = self.config, self.config.corrections + 1
        targets = soft_targets(masks, masks.shape[-1] // self.backbone.mask_stride)
        prompts = first_prompts(masks, box_share=config.box_share)
        sums: dict[str, Tensor] = {}
        rounds = answer_and_correct(
            lambda asked: predict(self.backbone.decode(features, asked), self.head),
            prompts,
            masks,
            corrections=config.corrections,
        )
        for prediction, choice, _ in rounds:
            if isinstance(self.head, LaplaceHead) and not adversarial:
                self.head.observe(prediction.decoded, choice)
            terms = objective_terms(prediction, choice, targets, config.loss, phase, adversarial=adversarial)
            if adversarial and (climbed := OBJECTIVES[config.attack.objective]) is not None:
                # The head descends all terms, but only one of them leads back to the attacked picture.
                still = predict(prediction.decoded.detach(), self.head)
                others = objective_terms(still, choice, targets, config.loss, phase, adversarial=True)
                terms = others | {climbed: terms[climbed]}
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value / steps
        sums["total"] = sum(sums.values())
        return sums

    def _attack(self, images: Tensor, embedding: Tensor, masks: Tensor, valid: Tensor) -> Attacked:
        climbed = self._climbed(masks, valid) if self.config.attack.kind == "pgd" else None
        return self.attacker(images, embedding, masks, valid, loss_fn=climbed)

    def _encode_attacked(self, images: Tensor) -> Features:
        """Features of attacked images, themselves under attack where the attack is one on features."""
        features = self.backbone.encode(images)
        embedding, *high_res = self.attacker.perturb_features([features.embedding, *features.high_res])
        return Features(embedding, high_res)

    def _climbed(self, masks: Tensor, valid: Tensor) -> Callable[[Tensor], Tensor]:
        """What PGD, an attack without parameters, climbs: the segmentation loss at the first prompt."""
        index, truth = valid.nonzero()[:, 0], masks[valid] > 0.5
        prompts = first_prompts(truth, box_share=self.config.box_share)

        def loss(images: Tensor) -> Tensor:
            decoded = self.backbone.decode(self.backbone.encode(images).gather(index), prompts)
            prediction = predict(decoded, self.head)
            targets = soft_targets(truth, truth.shape[-1] // self.backbone.mask_stride)
            terms = segmentation_loss(
                prediction.logits, prediction.iou, decoded.object_score, targets, self.config.loss.segmentation
            )
            return sum(terms.values()).mean()

        return loss

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Head, attackers and what is tuned of the backbone; vectors without weight decay."""
        config = self.config
        rates = {"head": config.head_rate, "attacker": config.attacker_rate, "lora": config.lora_rate}
        groups = []
        for name, module in self.trained_modules().items():
            rate = rates.get(name, config.decoder_rate)
            trained = [p for p in module.parameters() if p.requires_grad]
            for suffix, decays in (("", True), ("_vectors", False)):
                params = [p for p in trained if (p.ndim > 1) is decays]
                if params:
                    decay = config.weight_decay if decays else 0.0
                    groups.append({"name": name + suffix, "params": params, "lr": rate, "weight_decay": decay})
        return groups

    def trained_modules(self) -> dict[str, nn.Module]:
        head = {} if self.head is None else {"head": self.head}
        return head | {"attacker": self.attacker} | self.tuned

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
        prediction = predict(self.backbone.decode(self._encode_attacked(attacked.images), prompts), self.head)
        logit = prediction.calibrated_logit(best_candidate(prediction.iou))
        side = truth.shape[-1]
        return {
            "attack": attack_panel(first["image"][0], attacked.images[0], truth[0], upsample(logit, (side, side))[0, 0])
        }


def train_head(config: TrainConfig, *, resume: bool) -> Path:
    """Train as `config` says; returns the last checkpoint. Raises `RuacError` for unusable input."""
    backbone = load_backbone(config.backbone)
    if backbone.boxes_only and config.box_share < 1:
        raise RuacError(f"box_share: {config.box_share}, expected 1: {backbone.name} answers boxes, not clicks alone")
    dataset = open_dataset(config.source, split=config.train_split, orientation=config.data.orientation)
    held_out = (
        open_dataset(config.source, split=config.validation_split, orientation=config.data.orientation)
        if config.validation_split
        else None
    )
    seed = config.engine.seed
    data = TrainingSet(dataset, config.data, side=backbone.image_size, seed=seed, length=STREAM_LENGTH)
    torch.manual_seed(seed)  # the head's and the attackers' initial weights
    task = AdversarialTask(backbone, config, held_out)
    return train(task, data, config.engine, config.out, run_config=config, resume=resume)
