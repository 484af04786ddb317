"""``ruac train-student``: a semantic segmenter from a folder with classes of which few pictures have labels."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import save_file

from ruac.base.errors import RuacError
from ruac.base.files import atomic_path, write_text
from ruac.base.provenance import environment
from ruac.data.classes import ClassFolder
from ruac.training.engine import EngineConfig, load_checkpoint, train
from ruac.training.student.methods import METHODS, OWN, STRONG_VIEWS, ConsistencyConfig, Plan, StagesConfig
from ruac.training.student.models import MobileNetConfig, ModelConfig, build_segmenter
from ruac.training.student.split import Split, SplitConfig, check_truth, split_pictures
from ruac.training.student.stream import StudentStream, check_pseudo
from ruac.training.student.task import StudentTask
from ruac.training.student.validation import evaluate
from ruac.training.student.views import ViewsConfig


def engine_defaults() -> EngineConfig:
    """SGD with the paper's poly schedule; steps and validation follow from epochs."""
    return EngineConfig(optimizer="sgd", schedule="poly", final_share=0.0, batch_size=4, clip=10.0, panel_every=0)


@dataclass
class StudentConfig:
    """source: folder with classes, see `ClassFolder`. background: as there. pseudo_labels: folder of a finished ``ruac
    pseudo-label``, for the methods that learn from it. method, then: see `Plan.of`; then: self_training, fixmatch,
    unimatch_v1 or unimatch_v2. side: of the square that pictures are resized to, a multiple of 32.

    epochs: rounds through all pictures that are not for validation, whatever the method, so that runs of one split
    have the same number of steps. validate_epochs: between validations (0: at the end alone). rate: of the trunk,
    head_rate: of the head, in these factors.
    """

    source: str = "???"
    out: str = "runs/student"
    background: bool = True
    pseudo_labels: str | None = None
    method: str = "supervised"
    then: str = "self_training"
    side: int = 256
    epochs: int = 80
    validate_epochs: int = 1
    rate: float = 0.003
    head_rate: float = 10.0
    weight_decay: float = 1e-4
    model: ModelConfig = field(default_factory=MobileNetConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    stages: StagesConfig = field(default_factory=StagesConfig)
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    engine: EngineConfig = field(default_factory=engine_defaults)

    def validate(self) -> None:
        if self.method not in METHODS:
            raise RuacError(f"method: {self.method!r}, expected {', '.join(METHODS)}")
        if self.then not in OWN:
            raise RuacError(f"then: {self.then!r}, expected {', '.join(OWN)}")
        if self.side < 32 or self.side % 32:
            raise RuacError(f"side: {self.side}, expected a multiple of 32")
        if self.epochs < 1 or self.validate_epochs < 0:
            raise RuacError("expected epochs of at least 1, validate_epochs of at least 0")
        if not (self.rate > 0 and self.head_rate > 0 and self.weight_decay >= 0):
            raise RuacError("expected rate and head_rate above 0, weight_decay of at least 0")
        plan = self.plan()
        if plan.second is not None and self.stages.start > self.epochs:
            raise RuacError(f"stages.start: {self.stages.start}, expected at most epochs={self.epochs}")
        if self.model.kind == "deeplabv3" and self.engine.batch_size < 2:
            raise RuacError(
                f"engine.batch_size: {self.engine.batch_size}, expected at least 2: deeplabv3 has a batch norm "
                f"over one pixel of each picture"
            )
        default = engine_defaults()
        for name in ("steps", "validate_every"):
            if getattr(self.engine, name) != getattr(default, name):
                raise RuacError(f"engine.{name}: follows from epochs and validate_epochs; expected no value")

    def plan(self) -> Plan:
        return Plan.of(self.method, self.then, self.epochs, self.stages)


def open_split(config: StudentConfig) -> tuple[ClassFolder, Split]:
    dataset = ClassFolder(config.source, background=config.background)
    return dataset, split_pictures(dataset, config.split)


def write_split(dataset: ClassFolder, split: Split, out: Path) -> None:
    """``labelled.txt``, ``unlabelled.txt`` and ``validation.txt``, as ``ruac pseudo-label labelled=`` reads them."""
    for name, files in split.files(dataset).items():
        write_text(out / f"{name}.txt", "".join(f"{file}\n" for file in files))


def train_student(config: StudentConfig, *, resume: bool) -> Path:
    """Train, and write ``student.safetensors`` and ``result.json`` beside the checkpoint; returns the folder.

    Raises `RuacError` for unusable data, splits or pseudo-labels before anything is written.
    """
    plan, out = config.plan(), Path(config.out)
    # Not an error of the config: the lists of its split are what labels are made for.
    if "pseudo" in plan.kinds and config.pseudo_labels is None:
        raise RuacError(f"pseudo_labels: missing; method={config.method} needs a folder of ruac pseudo-label")
    dataset, split = open_split(config)
    record = None
    if "pseudo" in plan.kinds:
        record = check_pseudo(Path(config.pseudo_labels), dataset, split)
    if plan.kinds and not split.unlabelled:
        raise RuacError(f"split: no picture is left unlabelled; method={config.method} needs some")
    check_truth(dataset, split)

    torch.manual_seed(config.engine.seed)  # initial weights
    model = build_segmenter(config.model, len(dataset.names))
    rates = (config.rate, config.rate * config.head_rate)
    task = StudentTask(model, plan, config.consistency, rates, config.weight_decay, dataset, split, config.side)
    data = StudentStream(
        dataset,
        split,
        config.views,
        side=config.side,
        seed=config.engine.seed,
        unlabelled=bool(plan.kinds),
        strong=max((STRONG_VIEWS.get(kind, 0) for kind in plan.kinds), default=0),
        pseudo=Path(config.pseudo_labels) / "labels" if record else None,
    )
    engine = epochs_in_steps(config, len(split.labelled) + len(split.unlabelled))
    checkpoint = train(task, data, engine, out, run_config=config, resume=resume)
    if PartialState().is_main_process:  # the others are done: the engine has taken their group apart
        load_checkpoint(checkpoint, task)  # of a run that had nothing left to do
        device = PartialState().device
        sums = evaluate(model.to(device), dataset, split.validation, side=config.side, device=device)
        write_split(dataset, split, out)
        with atomic_path(out / "student.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
        iou = {name: None if np.isnan(v) else float(v) for name, v in zip(dataset.names, sums.iou(), strict=True)}
        result = {
            "config": asdict(config),
            "classes": dataset.names,
            "split": split.files(dataset),
            "steps": engine.steps,
            "pseudo_labels": record and {key: record[key] for key in ("config", "model", "thresholds")},
            "validation": sums.compute() | {"iou": iou},
            "environment": environment(),
        }
        write_text(out / "result.json", json.dumps(result, indent=1) + "\n")
    return out


def epochs_in_steps(config: StudentConfig, pictures: int) -> EngineConfig:
    """The engine's config with `steps` and `validate_every`: an epoch is as many steps as `pictures` fill."""
    per_step = config.engine.batch_size * config.engine.accumulate * PartialState(cpu=config.engine.cpu).num_processes
    epoch = math.ceil(pictures / per_step)
    return replace(config.engine, steps=epoch * config.epochs, validate_every=epoch * config.validate_epochs)
