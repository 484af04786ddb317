"""Stress as strong as a real domain: procedural shifts of source pictures, drawn at training time (method, sec. 7)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ruac.base.errors import RuacError
from ruac.data.synthetic.shifts import SHIFTS


@dataclass
class StressConfig:
    """families: keys of `SHIFTS` that are drawn from, all alike (empty: all of them). leave_out: some of them not."""

    families: list[str] = field(default_factory=list)
    leave_out: list[str] = field(default_factory=list)

    def validate(self) -> None:
        if unknown := [name for name in [*self.families, *self.leave_out] if name not in SHIFTS]:
            raise RuacError(f"stress: {unknown[0]!r}, expected some of: {', '.join(SHIFTS)}")
        if not self.drawn:
            raise RuacError("stress.leave_out: nothing is left; expected at least one family")

    @property
    def drawn(self) -> list[str]:
        """The families that are drawn from."""
        return [name for name in self.families or SHIFTS if name not in self.leave_out]


def stress(
    image: np.ndarray, masks: np.ndarray, config: StressConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A picture ``uint8 [H, W, 3]`` and its masks ``bool [K, H, W]``, none empty, under one shift."""
    return SHIFTS[config.drawn[int(rng.integers(len(config.drawn)))]](image, masks, rng)
