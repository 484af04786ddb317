"""Validation while training: the sweep's own evaluation on a few source images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from ruac.base.errors import RuacError
from ruac.data.sample import MaskDataset
from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Scores, evaluate_image
from ruac.inference.model import UncertainSam


@dataclass
class ValidationConfig:
    """images: how many, spread evenly over the split (0: all). clicks: per object."""

    images: int = 40
    clicks: int = 3

    def validate(self) -> None:
        if self.images < 0 or self.clicks < 1:
            raise RuacError("validation: images expected at least 0, clicks at least 1")


def validate(
    model: UncertainSam, dataset: MaskDataset, config: ValidationConfig, accelerator: Accelerator
) -> dict[str, float]:
    """J, F and band reliability of `model` and of its backbone alone; the same on every process.

    Keys are ``head/<metric>`` for `model` and ``vanilla/<metric>`` for the backbone. A backbone that is fine-tuned
    is vanilla SAM 2 no longer: where any of its parameters is trainable, its keys are ``without_head/<metric>``. A
    `model` without a head has these alone.
    """
    tuned = any(parameter.requires_grad for parameter in model.backbone.parameters())
    alone = "without_head" if tuned else "vanilla"
    models = {alone: UncertainSam(model.backbone, None)} | ({} if model.head is None else {"head": model})
    count = min(config.images or len(dataset), len(dataset))
    picked = np.linspace(0, len(dataset) - 1, count).astype(int)
    protocol, scores = ProtocolConfig(clicks=config.clicks, box=model.backbone.boxes_only), Scores()
    training = model.head is not None and model.head.training
    if training:
        model.head.eval()
    for index in picked[accelerator.process_index :: accelerator.num_processes]:
        evaluate_image(models, dataset[index], protocol, scores, domain="validation", regions=("band",))
    if training:
        model.head.train()

    values: dict[str, float] = {}
    for name, judged in models.items():
        score = "entropy" if judged.head is None else "total"  # as the sweep names them
        rows = [row for row in scores.rows if row["model"] == name]
        totals = torch.tensor([sum(r["j"] for r in rows), sum(r["f"] for r in rows), len(rows)], dtype=torch.float32)
        j, f, objects = accelerator.reduce(totals.to(accelerator.device), "sum").tolist()
        sums: ReliabilitySums = scores.sums[name, score, "band"]
        if accelerator.num_processes > 1:
            sums.all_reduce(accelerator.device)
        metrics = sums.compute()
        values |= {f"{name}/j": j / objects, f"{name}/f": f / objects}
        values |= {f"{name}/band_{key}": metrics[key] for key in ("auroc", "ece", "nll", "aurc")}
    return values
