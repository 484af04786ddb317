"""Stress as strong as a real domain: procedural shifts of source pictures, drawn at training time (method, sec. 7)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ruac.base.errors import RuacError
from ruac.data.synthetic.corruptions import corrupt, parse_corruption
from ruac.data.synthetic.shifts import SHIFTS


@dataclass
class StressConfig:
    """What is drawn from, all alike. families: keys of `SHIFTS`; empty, and with no corruptions named either: all of
    them. leave_out: some of them not. corruptions: with their severities, as in a sweep (``fog:3``).

    weakest, strongest: strength of a family's shift, drawn uniformly between them; 1 is the shifted domain itself.
    """

    families: list[str] = field(default_factory=list)
    leave_out: list[str] = field(default_factory=list)
    corruptions: list[str] = field(default_factory=list)
    weakest: float = 1.0
    strongest: float = 1.0

    def validate(self) -> None:
        if unknown := [name for name in [*self.families, *self.leave_out] if name not in SHIFTS]:
            raise RuacError(f"stress: {unknown[0]!r}, expected some of: {', '.join(SHIFTS)}")
        for text in self.corruptions:
            parse_corruption(text)
        if not self.drawn:
            raise RuacError("stress.leave_out: nothing is left; expected at least one family")
        if not 0 < self.weakest <= self.strongest <= 2:
            found = f"stress.weakest {self.weakest}, stress.strongest {self.strongest}"
            raise RuacError(f"{found}: expected 0 < weakest <= strongest <= 2")

    @property
    def drawn(self) -> list[str]:
        """The families and corruptions that are drawn from."""
        families = self.families or ([] if self.corruptions else SHIFTS)
        return [name for name in families if name not in self.leave_out] + self.corruptions


def stress(
    image: np.ndarray, masks: np.ndarray, config: StressConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A picture ``uint8 [H, W, 3]`` and its masks ``bool [K, H, W]``, none empty, under one shift or corruption.

    Raises `RuacError` where a corruption needs a library that is missing, or a larger picture.
    """
    drawn = config.drawn
    name = drawn[int(rng.integers(len(drawn)))]
    if ":" in name:
        return corrupt(image, masks, name, rng)
    fixed = config.weakest == config.strongest  # then nothing is drawn
    strength = config.weakest if fixed else float(rng.uniform(config.weakest, config.strongest))
    return SHIFTS[name](image, masks, rng, strength=strength)
