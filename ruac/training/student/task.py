"""A student as a task of the engine."""

from __future__ import annotations

import copy
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ruac.data.augment import MEAN, STD
from ruac.data.classes import ClassFolder
from ruac.evaluation.metrics.semantic import SemanticSums
from ruac.labelling.run import overlay
from ruac.training.student.methods import ConsistencyConfig, Plan, method_losses
from ruac.training.student.models import Segmenter
from ruac.training.student.split import Split
from ruac.training.student.validation import evaluate


class Teacher(nn.Module):
    """Running mean of a model's weights: ``ema`` of the old ones, less at the beginning (Tarvainen and Valpola)."""

    def __init__(self, model: Segmenter, ema: float):
        super().__init__()
        self.model, self.ema = copy.deepcopy(model).requires_grad_(False).eval(), ema
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(self, model: Segmenter) -> None:
        kept = min(1 - 1 / (int(self.updates) + 1), self.ema)
        for own, new in zip(self.model.parameters(), model.parameters(), strict=True):
            own.lerp_(new, 1 - kept)
        for own, new in zip(self.model.buffers(), model.buffers(), strict=True):
            own.copy_(new)
        self.updates += 1


class StudentTask(nn.Module):
    """The model learns from batches of `StudentStream` by `plan`.

    rates: of the trunk and of the head. UniMatch V2 has a teacher; what is validated is the student in any case.
    """

    def __init__(
        self,
        model: Segmenter,
        plan: Plan,
        consistency: ConsistencyConfig,
        rates: tuple[float, float],
        weight_decay: float,
        dataset: ClassFolder,
        split: Split,
        side: int,
    ):
        super().__init__()
        self.model, self.plan, self.consistency = model, plan, consistency
        self.rates, self.weight_decay = rates, weight_decay
        self.dataset, self.split, self.side = dataset, split, side
        self.teacher = Teacher(model, consistency.ema) if "unimatch_v2" in plan.kinds else None

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        kind, labelled, unlabelled = self.plan.at(progress)
        guide = self.model
        if self.teacher is not None:
            self.teacher.follow(self.model)
            guide = self.teacher.model if kind == "unimatch_v2" else guide
        terms = method_losses(kind, self.model, guide, batch, self.consistency)
        terms["share"] = torch.tensor(unlabelled, device=batch["image"].device)
        loss = labelled * terms["labelled"]
        if kind is not None:
            loss = loss + unlabelled * terms["unlabelled"]
        return {"loss": loss} | terms

    def parameter_groups(self) -> list[dict[str, Any]]:
        parts = {"trunk": self.model.trunk, "head": self.model.head}
        return [
            {
                "name": name,
                "params": [p for p in part.parameters() if p.requires_grad],
                "lr": rate,
                "weight_decay": self.weight_decay,
            }
            for (name, part), rate in zip(parts.items(), self.rates, strict=True)
        ]

    def trained_modules(self) -> dict[str, nn.Module]:
        return {"model": self.model} | ({} if self.teacher is None else {"teacher": self.teacher})

    def sums(self, accelerator: Accelerator) -> SemanticSums:
        """Of the validation pictures. Processes have seen others: all take the running means of the first."""
        if accelerator.num_processes > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        return evaluate(
            self.model,
            self.dataset,
            self.split.validation,
            side=self.side,
            device=accelerator.device,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )

    def validate(self, accelerator: Accelerator) -> dict[str, float]:
        return self.sums(accelerator).compute()

    @torch.no_grad()
    def panels(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A labelled picture, its labels and the answer; and an unlabelled one with its pseudo-labels."""
        pictures = {"labelled": ("image", "labels")} | ({"unlabelled": ("weak", "pseudo")} if "weak" in batch else {})
        training = self.model.training
        self.model.eval()
        panels = {}
        for name, (image, labels) in pictures.items():
            answer = self.model(batch[image][:1])[0].argmax(0).cpu().numpy()
            colours = (batch[image][0].cpu() * STD + MEAN).clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()
            panel = overlay(colours, batch[labels][0].cpu().numpy(), answer)
            panels[name] = torch.from_numpy(panel).permute(2, 0, 1).float() / 255
        self.model.train(training)
        return panels
