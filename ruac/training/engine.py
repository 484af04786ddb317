"""The training loop: accelerate around a task, exact resume, atomic checkpoints.

Every step's data and randomness are functions of (seed, step, process), so a resumed run needs
only weights, optimiser state and the step to repeat an uninterrupted one to the last bit.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from ruac.base.errors import RuacError
from ruac.base.files import atomic_path, held
from ruac.base.provenance import save_record
from ruac.training.finite import average, check_gradients, check_loss

LAST = "last.pt"
PATIENCE = 10.0  # seconds, in which the data workers of a killed run notice and let go of its folder
STREAM_LENGTH = 1 << 40  # of a numbered stream of samples: more than any run will draw
POLY = 0.9  # power of the schedule of that name


@dataclass
class EngineConfig:
    """How long and how to optimise.

    optimizer: adamw, or sgd with `momentum`. steps: optimiser steps. batch_size: images per process and
    micro-batch. accumulate: micro-batches per step. schedule: constant, or cosine, linear or poly (the remaining share
    of steps to the power 0.9) down to `final_share` of each group's rate, starting after `hold` (a share of the steps)
    at the full rate. warmup: steps.
    clip: largest gradient norm. precision: fp32 or bf16. *_every: steps between events (0: never,
    but the last step is always saved).
    """

    optimizer: str = "adamw"
    momentum: float = 0.9
    steps: int = 1000
    batch_size: int = 8
    accumulate: int = 1
    schedule: str = "cosine"
    hold: float = 0.0
    final_share: float = 0.1
    warmup: int = 0
    clip: float = 0.1
    precision: str = "fp32"
    workers: int = 0
    seed: int = 0
    log_every: int = 20
    validate_every: int = 500
    save_every: int = 500
    panel_every: int = 500
    cpu: bool = False

    def validate(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every"):
            if getattr(self, name) < 1:
                raise RuacError(f"engine.{name}: {getattr(self, name)}, expected at least 1")
        for name in ("warmup", "workers", "seed", "validate_every", "save_every", "panel_every"):
            if getattr(self, name) < 0:
                raise RuacError(f"engine.{name}: {getattr(self, name)}, expected at least 0")
        if self.optimizer not in ("adamw", "sgd"):
            raise RuacError(f"engine.optimizer: {self.optimizer!r}, expected adamw or sgd")
        if not 0 <= self.momentum < 1:
            raise RuacError(f"engine.momentum: {self.momentum}, expected a number in [0, 1)")
        if self.schedule not in ("cosine", "linear", "poly", "constant"):
            raise RuacError(f"engine.schedule: {self.schedule!r}, expected cosine, linear, poly or constant")
        if self.precision not in ("fp32", "bf16"):
            raise RuacError(f"engine.precision: {self.precision!r}, expected fp32 or bf16")
        if not 0 <= self.hold < 1:
            raise RuacError(f"engine.hold: {self.hold}, expected a share in [0, 1)")
        if not 0 <= self.final_share <= 1:
            raise RuacError(f"engine.final_share: {self.final_share}, expected a share in [0, 1]")
        if not self.clip > 0:
            raise RuacError(f"engine.clip: {self.clip}, expected a positive gradient norm")


class Task(Protocol):
    """What is trained. A task is an `nn.Module` whose forward gives the loss."""

    def __call__(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Loss terms of a micro-batch; "loss" is minimised, all are logged. progress in [0, 1)."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups with keys name, params, lr, weight_decay."""

    def trained_modules(self) -> dict[str, nn.Module]:
        """The modules whose state belongs into a checkpoint."""

    def validate(self, accelerator: Accelerator) -> dict[str, float]: ...

    def panels(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Pictures ``[3, H, W]`` in [0, 1] for TensorBoard."""


def train(task: Task, data: Dataset, config: EngineConfig, out: str | Path, *, run_config: Any, resume: bool) -> Path:
    """Train `task` on the numbered stream `data`; returns the path of the last checkpoint.

    data: item n is a function of n; it must hold steps x accumulate x batch_size x processes
    items. run_config: saved beside the checkpoints with the environment. resume: continue from
    ``out/last.pt``. Raises `RuacError` when `out` holds another run and `resume` is off, when there
    is nothing to resume, when processes, batch_size or accumulate differ from those of the run to be
    resumed, when another run is at work in `out`, or when the loss or a gradient is not finite (naming the
    terms and the groups of parameters at fault; the last checkpoint stays).
    """
    out = Path(out)
    if resume and not (out / LAST).exists():
        raise RuacError(f"{out / LAST}: nothing to resume")
    accelerator = Accelerator(
        cpu=config.cpu,
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        gradient_accumulation_steps=config.accumulate,
        log_with="tensorboard",
        project_dir=str(out),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # branches start late
    )
    with held(out, patience=PATIENCE) if accelerator.is_main_process else nullcontext():
        return _train(task, data, config, out / LAST, accelerator, run_config, resume)


def _train(
    task: Task,
    data: Dataset,
    config: EngineConfig,
    checkpoint: Path,
    accelerator: Accelerator,
    run_config: Any,
    resume: bool,
) -> Path:
    out = checkpoint.parent
    if checkpoint.exists() and not resume:
        raise RuacError(f"{out}: already holds a run; pass --resume to continue it, or another out=")
    groups = task.parameter_groups()
    optimizer = (
        torch.optim.AdamW(groups) if config.optimizer == "adamw" else torch.optim.SGD(groups, momentum=config.momentum)
    )
    # Which sample goes where: a resumed run repeats an uninterrupted one only if none of these has changed.
    stream = {
        "processes": accelerator.num_processes,
        "batch_size": config.batch_size,
        "accumulate": config.accumulate,
    }
    start = load_checkpoint(checkpoint, task, optimizer, stream) if resume else 0
    if start >= config.steps:
        accelerator.print(f"{checkpoint}: is at step {start} of {config.steps}, nothing left to do")
        return checkpoint
    if accelerator.is_main_process:  # only now: a checkpoint that does not fit must not cost the run its record
        before = _lines(out / "config.yaml")
        save_record(out, run_config)
        if start and (changed := [line.strip() for line in _lines(out / "config.yaml") if line not in before]):
            accelerator.print(f"warning: resumed at step {start} with other settings than before: {', '.join(changed)}")
    # What was logged after the checkpoint, before an interruption, is logged again.
    accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": start + 1}})

    micro_batches = config.steps * config.accumulate
    per_step = math.prod(stream.values())
    samples = Subset(data, range(start * per_step, config.steps * per_step))
    loader = DataLoader(
        samples, batch_size=config.batch_size, num_workers=config.workers, persistent_workers=config.workers > 0
    )
    wrapped, optimizer, loader = accelerator.prepare(task, optimizer, loader)
    base_rates = [group["lr"] for group in groups]

    accelerator.print(describe(task))
    micro = start * config.accumulate
    with _progress_bar(config.steps, start, enabled=accelerator.is_main_process) as advance:
        for batch in loader:
            step = micro // config.accumulate
            _seed(config.seed, micro, accelerator.process_index)
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * rate_share(step, config)
            with accelerator.accumulate(wrapped):
                with accelerator.autocast():
                    terms = wrapped(batch, micro / micro_batches)
                check_loss(terms, step, checkpoint, accelerator)
                accelerator.backward(terms["loss"])
                if accelerator.sync_gradients:
                    norms = _group_norms(groups)  # before the clip, which spreads what is not finite
                    norm = accelerator.clip_grad_norm_([p for g in groups for p in g["params"]], config.clip)
                    check_gradients(norm, norms, step, checkpoint, accelerator)
                optimizer.step()
                optimizer.zero_grad()
            micro += 1
            if micro % config.accumulate:
                continue
            done = step + 1
            if step % config.log_every == 0 or done == config.steps:
                values = average(terms, accelerator)
                line = " ".join(f"{k} {v:.4f}" for k, v in values.items() if "/" not in k or k.endswith("/total"))
                rates = {f"rate/{g['name']}": g["lr"] for g in optimizer.param_groups}
                gradients = {f"gradient/{name}": float(norm) for name, norm in norms.items()}
                accelerator.log({f"train/{k}": v for k, v in values.items()} | gradients | rates, step=done)
                advance(done, f"step {done} {line}")
            else:
                advance(done, None)
            if _due(done, config.panel_every, config.steps) and accelerator.is_main_process:
                _log_panels(accelerator, task, batch, done)
            if _due(done, config.validate_every, config.steps):
                scores = task.validate(accelerator)
                accelerator.log({f"validation/{k}": v for k, v in scores.items()}, step=done)
                line = " ".join(f"{k} {v:.4f}" for k, v in scores.items())
                advance(done, f"step {done} validation {line}" if scores else None)
            if _due(done, config.save_every, config.steps) or done == config.steps:
                if accelerator.is_main_process:
                    save_checkpoint(checkpoint, task, optimizer, stream | {"step": done})
                accelerator.wait_for_everyone()
    # A wrapper that outlives its process group destroys it while it holds the interpreter's lock, for which the group's
    # own thread may be waiting: now and then a process would never end.
    wrapped, optimizer, loader = accelerator.free_memory(wrapped, optimizer, loader)
    accelerator.end_training()
    return checkpoint


def rate_share(step: int, config: EngineConfig) -> float:
    """Share of the base learning rate at `step`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    held = max(config.warmup, config.hold * config.steps)
    position = min(1.0, max(0.0, (step - held) / max(1.0, config.steps - held)))
    power = POLY if config.schedule == "poly" else 1.0
    fall = (1 + math.cos(math.pi * position)) / 2 if config.schedule == "cosine" else (1 - position) ** power
    return config.final_share + (1 - config.final_share) * fall


def save_checkpoint(path: Path, task: Task, optimizer: torch.optim.Optimizer, place: dict[str, int]) -> None:
    """Write weights, optimiser state and the place in the data (step, and the stream's numbers) as one atomic file."""
    modules = {name: module.state_dict() for name, module in task.trained_modules().items()}
    with atomic_path(path) as temporary:
        torch.save(place | {"modules": modules, "optimizer": optimizer.state_dict()}, temporary)


def load_checkpoint(
    path: Path, task: Task, optimizer: torch.optim.Optimizer | None = None, stream: dict[str, int] | None = None
) -> int:
    """Load a training checkpoint strictly; returns its step.

    stream: how the resuming run shares the data out; a number that was another one when the checkpoint was made is
    refused, one that it does not hold is not compared. Raises `RuacError` naming what does not fit.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, module in task.trained_modules().items():
            module.load_state_dict(state["modules"][name])
        if optimizer is not None:
            optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    except FileNotFoundError:
        raise RuacError(f"{path}: checkpoint not found") from None
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise RuacError(f"{path}: does not fit this run: {what}") from error
    for name, value in (stream or {}).items():
        if (saved := state.get(name, value)) != value:
            raise RuacError(f"{path}: made with {name}={saved}, this run has {name}={value}: resume with {saved}")
    return step


def describe(task: Task) -> str:
    """A table of trainable and frozen parameters per part of the task."""
    rows = [("part", "trainable", "frozen")]
    for name, module in task.named_children():
        counts = [sum(p.numel() for p in module.parameters() if p.requires_grad is flag) for flag in (True, False)]
        rows.append((name, *(f"{count:,}" for count in counts)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _seed(seed: int, micro: int, process: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence([seed, micro, process]).generate_state(1)[0]))


def _due(done: int, every: int, total: int) -> bool:
    return every > 0 and (done % every == 0 or done == total)


def _group_norms(groups: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Norms of the gradients by name of the group, left on their device: nothing waits for them in most steps."""
    norms = {}
    for group in groups:
        parts = [p.grad.norm() for p in group["params"] if p.grad is not None]
        norms[group["name"]] = torch.stack(parts).norm() if parts else torch.zeros(())
    return norms


def _log_panels(accelerator: Accelerator, task: Task, batch: dict[str, Tensor], step: int) -> None:
    writer = accelerator.get_tracker("tensorboard", unwrap=True)
    for name, picture in task.panels(batch).items():
        writer.add_image(f"panels/{name}", picture, step)


class _progress_bar:
    """A progress bar with time left; log lines are printed above it."""

    def __init__(self, total: int, start: int, *, enabled: bool):
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            disable=not enabled,
        )
        self._enabled = enabled
        self._task = self._bar.add_task("training", total=total, completed=start)

    def __enter__(self):
        self._bar.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _advance(self, done: int, line: str | None) -> None:
        self._bar.update(self._task, completed=done)
        if line and self._enabled:
            self._bar.console.print(line, highlight=False, soft_wrap=True)
