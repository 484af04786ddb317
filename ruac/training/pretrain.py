"""Promptable training of a whole small SAM 2: clicks, boxes, corrections, candidates, scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState
from torch import Tensor, nn

from ruac.backbone.backbone import Backbone
from ruac.backbone.clicks import answer_and_correct
from ruac.backbone.mobilenet import load_imagenet_trunk
from ruac.backbone.nano import Nano, load_nano, save_nano
from ruac.backbone.prompts import first_prompts
from ruac.base.errors import RuacError
from ruac.data.augment import prepare
from ruac.data.open import open_dataset
from ruac.data.sample import MaskDataset
from ruac.data.training import TrainingDataConfig, TrainingSet
from ruac.evaluation.protocol import ProtocolConfig, prompt_objects
from ruac.training.engine import STREAM_LENGTH, EngineConfig, train
from ruac.training.losses.segmentation import SegmentationConfig, segmentation_loss, soft_targets


@dataclass
class PretrainConfig:
    """source: folder to train on, with splits `train_split` and `validation_split`. trunk: of
    nano. trunk_weights: an ImageNet trunk, or empty. init: a nano checkpoint to start from, or
    empty. corrections: clicks after the first prompt. loss_stride: of the grid that is
    supervised (4: the logits' own). validation_images: number of them (0: all)."""

    source: str = "???"
    out: str = "runs/pretrain"
    train_split: str | None = "train"
    validation_split: str | None = "val"
    trunk: str = "mobilenet_v2"
    trunk_weights: str = ""
    init: str = ""
    image_size: int = 256
    corrections: int = 2
    box_share: float = 0.5
    rate: float = 5e-4
    trunk_rate: float = 2e-4
    weight_decay: float = 0.1
    loss_stride: int = 4
    validation_images: int = 50
    data: TrainingDataConfig = field(default_factory=TrainingDataConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    loss: SegmentationConfig = field(default_factory=SegmentationConfig)

    def validate(self) -> None:
        if self.loss_stride not in (1, 2, 4):
            raise RuacError(f"loss_stride: {self.loss_stride}, expected 1, 2 or 4")
        if self.corrections < 0:
            raise RuacError(f"corrections: {self.corrections}, expected at least 0")


class PretrainTask(nn.Module):
    """Every weight of the backbone but the memory encoder's learns to segment what is prompted."""

    def __init__(self, backbone: Backbone, config: PretrainConfig, validation: MaskDataset):
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.validation = validation
        backbone.sam.memory_encoder.requires_grad_(False)
        backbone.sam.image_encoder.trunk.to(memory_format=torch.channels_last)  # convolutions 1.7 times faster on CPU

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        config, valid = self.config, batch["valid"]
        masks = batch["masks"][valid]  # [N, S, S]
        image_index = valid.nonzero()[:, 0]
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        features = self.backbone.encode(images).gather(image_index)
        targets = soft_targets(masks, masks.shape[-1] // config.loss_stride)
        prompts = first_prompts(masks, box_share=config.box_share)
        totals: dict[str, Tensor] = {}
        rounds = answer_and_correct(
            lambda asked: self.backbone.decode(features, asked), prompts, masks, corrections=config.corrections
        )
        for decoded, _, prompts in rounds:
            logits = _resize(decoded.logits, targets.shape[-1])
            unambiguous = (prompts.labels >= 0).sum(dim=1) > 1  # a box, or more than one click
            terms = segmentation_loss(
                logits, decoded.iou, decoded.object_score, targets, config.loss, unambiguous=unambiguous
            )
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + value.mean() / (config.corrections + 1)
        return {"loss": sum(totals.values())} | totals

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trunk and the rest, each split into decayed matrices and undecayed vectors."""
        groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
        for name, parameter in self.backbone.named_parameters():
            if parameter.requires_grad:
                part = "trunk" if ".trunk." in name else "rest"
                groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
        rates = {"trunk": self.config.trunk_rate, "rest": self.config.rate}
        return [
            {
                "name": part if decays else f"{part}_vectors",
                "params": params,
                "lr": rates[part],
                "weight_decay": self.config.weight_decay if decays else 0.0,
            }
            for (part, decays), params in groups.items()
        ]

    def trained_modules(self) -> dict[str, nn.Module]:
        return {"backbone": self.backbone.sam}

    @torch.no_grad()
    def validate(self, accelerator: Accelerator) -> dict[str, float]:
        """Mean J after each click on the validation images (evaluation's protocol)."""
        limit = self.config.validation_images or len(self.validation)
        spread = np.linspace(0, len(self.validation) - 1, min(limit, len(self.validation))).astype(int)
        protocol = ProtocolConfig(clicks=3)
        sums = torch.zeros(protocol.clicks + 1, device=accelerator.device)  # J per click, then the count
        for index in spread[accelerator.process_index :: accelerator.num_processes]:
            sample = self.validation[index]
            side = self.backbone.image_size
            image = prepare(sample.image, side).to(accelerator.device)
            features = self.backbone.encode(image)
            rounds = prompt_objects(
                self.backbone.decode,
                features,
                sample.masks,
                protocol,
                frame=(side, side),
                keys=[f"{sample.record.id}/{k}" for k in sample.record.object_ids],
            )
            for click, answer in enumerate(rounds):
                union = (answer.masks | sample.masks).sum(axis=(1, 2))
                sums[click] += float(((answer.masks & sample.masks).sum(axis=(1, 2)) / union).sum())
            sums[-1] += len(sample.masks)
        sums = accelerator.reduce(sums, "sum")
        return {f"j_{click + 1}": float(sums[click] / sums[-1]) for click in range(protocol.clicks)}

    @torch.no_grad()
    def panels(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {}


def _resize(maps: Tensor, side: int) -> Tensor:
    if maps.shape[-1] == side:
        return maps
    return F.interpolate(maps.float(), (side, side), mode="bilinear", align_corners=False)


def pretrain(config: PretrainConfig, *, resume: bool, save: str | None = None) -> Path:
    """Train nano as `config` says; returns the last checkpoint. save: where the finished weights go, as float16.

    Raises `RuacError` for unusable input.
    """
    torch.manual_seed(config.engine.seed)  # initial weights
    nano = Nano(image_size=config.image_size, trunk=config.trunk)
    if config.trunk_weights:
        load_imagenet_trunk(nano.image_encoder.trunk, config.trunk_weights)
    if config.init:
        load_nano(nano, config.init)
    validation = open_dataset(config.source, split=config.validation_split, orientation=config.data.orientation)
    task = PretrainTask(Backbone(nano, name="nano"), config, validation)
    source = open_dataset(config.source, split=config.train_split, orientation=config.data.orientation)
    data = TrainingSet(source, config.data, side=config.image_size, seed=config.engine.seed, length=STREAM_LENGTH)
    checkpoint = train(task, data, config.engine, config.out, run_config=config, resume=resume)
    if save and PartialState().is_main_process:
        save_nano(nano, save)
    return checkpoint
