"""Answers with a truth that was drawn from known temperatures, and evidence of every kind beside them."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch

from ruac.calibration import Answers, Evidence

SIDE = 16


@pytest.fixture
def pixels() -> Callable[..., Answers]:
    """``pixels(2.0)``: many logits of one's own, and truth as if each were divided by 2."""

    def make(temperature: float = 1.0, count: int = 200_000, spread: float = 4.0, offset: float = 0.0) -> Answers:
        logits = spread * torch.randn(count)
        return Answers.of(logits, torch.rand(count) < (logits / temperature + offset).sigmoid())

    return make


@pytest.fixture
def pictures() -> Callable[..., list[Answers]]:
    """``pictures([1, 3], count=8)``: two objects each, of which picture n has temperature ``temperatures[n % 2]``.

    Its feature, its colour, its clicks and its tokens tell which.
    """

    def make(temperatures: Iterable[float] = (1.0, 3.0), *, count: int = 8, side: int = SIDE) -> list[Answers]:
        temperatures, found = list(temperatures), []
        for n in range(count):
            which = n % len(temperatures)
            logits = 4 * torch.randn(2, side, side)
            tokens = logits[:, None].repeat(1, 4, 1, 1)
            tokens[:, 0] += 40.0 * which - 20.0  # the single mask agrees with nobody
            evidence = Evidence(
                image=torch.full((2, 3, side, side), 2.0 * which - 1) + 0.1 * torch.randn(2, 3, side, side),
                feature=torch.full((2, 5), float(which)) + 0.01 * torch.randn(1, 5),
                clicks=torch.full((2,), 1 + 2 * which),
                boxed=torch.zeros(2, dtype=torch.bool),
                tokens=tokens,
                iou=torch.full((2, 4), 0.5),
                choice=torch.tensor([1, 2]),
            )
            truth = torch.rand(2, side, side) < (logits / temperatures[which]).sigmoid()
            found.append(Answers.of(logits, truth, evidence))
        return found

    return make


@pytest.fixture
def loss() -> Callable[..., float]:
    """``loss(calibrator, answers)``: mean negative log-likelihood in nats, from scipy's logistic function."""
    from scipy.special import log_expit

    def mean(calibrator, answers: list[Answers]) -> float:
        values = []
        for one in answers:
            logit = one.pixels(calibrator(one.logits, one.evidence)).double().numpy()
            values.append(-log_expit(np.where(one.truth.numpy() > 0.5, logit, -logit)))
        return float(np.concatenate(values).mean())

    return mean
