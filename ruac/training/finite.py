"""Training stops at what is not finite, and names it."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from ruac.base.errors import RuacError


def check_loss(terms: dict[str, Tensor], step: int, checkpoint: Path, accelerator: Accelerator) -> None:
    """Raise `RuacError` if the loss is not finite on any process, with the terms that are not.

    Terms are looked at only then, on every process: all have seen the same losses.
    """
    if bool(torch.isfinite(accelerator.gather(terms["loss"].detach().reshape(1))).all()):
        return
    broken = [name for name, value in average(terms, accelerator).items() if not math.isfinite(value)]
    parts = [name for name in broken if name != "loss" and not name.endswith("/total")]
    raise _not_finite("loss", step, checkpoint, f", nor is {', '.join(parts)}" if parts else "")


def check_gradients(
    norm: Tensor, groups: dict[str, Tensor], step: int, checkpoint: Path, accelerator: Accelerator
) -> None:
    """Raise `RuacError` on every process if the norm of all gradients is not finite, with the `groups` that are not.

    groups: norms by name of the group of parameters, the same on all processes, whose gradients are averaged.
    """
    if not bool(torch.isfinite(accelerator.gather(norm.detach().reshape(1))).all()):
        broken = [name for name, value in groups.items() if not math.isfinite(value)]
        raise _not_finite("gradient norm", step, checkpoint, f" in {', '.join(broken)}" if broken else "")


def _not_finite(what: str, step: int, checkpoint: Path, named: str = "") -> RuacError:
    kept = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was written yet"
    return RuacError(f"step {step + 1}: the {what} is not finite{named}; training stopped, {kept}")


def average(terms: dict[str, Tensor], accelerator: Accelerator) -> dict[str, float]:
    """Terms by name as means over processes, the loss first."""
    names = sorted(terms, key=lambda name: (name != "loss", name))
    stacked = torch.stack([terms[name].detach().float().reshape(()) for name in names])
    means = accelerator.gather(stacked[None]).mean(dim=0)
    return dict(zip(names, means.tolist(), strict=True))
