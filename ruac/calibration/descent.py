"""Fit a network to pixels: AdamW on the negative log-likelihood, with warm-up and cosine."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from ruac.base.errors import RuacError
from ruac.calibration.temperature import nll


class ScaleNetwork(Protocol):
    """A module that gives the log of a scale per pixel."""

    def log_scale(self, inputs: Tensor) -> Tensor:
        """``[N, 1, h, w]`` of inputs ``[N, C, h, w]``."""


def fit_scale(
    network: ScaleNetwork,
    inputs: Tensor,
    logits: Tensor,
    truth: Tensor,
    *,
    steps: int,
    batch: int,
    rate: float,
    generator: torch.Generator,
) -> None:
    """Fit ``sigmoid(scale(inputs) logits)`` to the truth of P pixels: inputs ``[P, C]``, logits and truth ``[P]``."""

    def loss(step: int) -> Tensor:
        some = torch.randint(len(truth), (batch,), generator=generator).to(truth.device)
        return nll(scaled_pixels(network, inputs[some], logits[some]), truth[some]).mean()

    descend(network, loss, steps=steps, rate=rate)


def scaled_pixels(network: ScaleNetwork, inputs: Tensor, logits: Tensor) -> Tensor:
    """Logits ``[P]`` times the scale that `network` reads from ``inputs [P, C]``, taken as a map of one column."""
    return network.log_scale(inputs.T[None, :, :, None]).reshape(-1).exp() * logits


def descend(
    network: nn.Module,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    rate: float,
    held_out: Callable[[], float] | None = None,
    every: int = 50,
) -> int:
    """Minimise ``loss(step)`` over the weights of `network`, which is frozen again afterwards.

    Gradients are clipped to norm 1; the rate warms up over 20 steps and falls to a fiftieth. held_out: loss on what is
    not fitted to; the weights that are kept are the best by it, looked at after 0, `every`, 2 `every` ... steps.
    Returns how many steps the weights that are kept have seen. Raises `RuacError` for a loss that is not finite.
    """
    best, kept, seen = float("inf"), None, steps
    network.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    with torch.enable_grad():
        for step in range(steps + 1):
            if held_out is not None and (step % every == 0 or step == steps) and (found := held_out()) < best:
                best, kept, seen = found, copy.deepcopy(network.state_dict()), step
            if step == steps:
                break
            optimizer.zero_grad()
            if not torch.isfinite(value := loss(step)):  # its gradient would make every weight nan
                raise RuacError(f"step {step + 1} of {steps}: the loss of the fit is not finite; nothing was fitted")
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    if kept is not None:
        network.load_state_dict(kept)
    network.requires_grad_(False)
    return seen


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 20) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
