"""From a training run's folder to an exported model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ruac.backbone import backbone_config, load_backbone
from ruac.backbone.lora import merge_lora
from ruac.base.config import load_record
from ruac.base.errors import RuacError
from ruac.base.files import read_json, sha256
from ruac.inference.export import export_model
from ruac.inference.model import UncertainSam
from ruac.training.adversarial import AdversarialTask, TrainConfig
from ruac.training.engine import LAST, load_checkpoint


def export_run(run: str | Path, out: str | Path, *, with_backbone: bool, card: Mapping[str, Any] | None = None) -> Path:
    """Export the last checkpoint of `run` (the ``out=`` of ruac train) without the attackers.

    LoRA is merged into the weights. card: see `export_model`. Raises `RuacError` if the folder holds no finished step
    of a run, or if what was trained of the backbone would be lost in a head-only export.
    """
    run = Path(run)
    if not (run / LAST).is_file():
        raise RuacError(f"{run / LAST}: not found; expected the out= folder of ruac train")
    config = load_record(TrainConfig, run / "config.yaml")
    if config.tunes_backbone and not with_backbone:
        raise RuacError(f"{run}: the backbone was fine-tuned; a head-only export would lose it")
    with torch.random.fork_rng(devices=[]):
        task = AdversarialTask(load_backbone(config.backbone), config, None)
    step = load_checkpoint(run / LAST, task)
    merge_lora(task.backbone)
    record = {"step": step, "checkpoint_sha256": sha256(run / LAST)}
    if (run / "environment.json").is_file():
        record["environment"] = read_json(run / "environment.json")
    model, spec = UncertainSam(task.backbone, task.head), backbone_config(config.backbone)
    return export_model(model, spec, out, with_backbone=with_backbone, record=record, card=card)
