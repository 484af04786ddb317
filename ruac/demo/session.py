"""What a visitor has done so far: a picture, clicks and settings. Every change makes a new one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ruac.backbone.prompts import BACKGROUND, OBJECT
from ruac.base.errors import RuacError

LOOK = "zoom"  # of the switch "second look"


@dataclass(frozen=True)
class Settings:
    """model: a name of `answer.MODELS`. look: look again. alpha: share that inner and outer masks may be wrong by.
    risk: mean of 1 - IoU that accepted masks may have."""

    model: str = "nano"
    look: bool = False
    alpha: float = 0.1
    risk: float = 0.25

    @property
    def looks(self) -> tuple[str, ...]:
        return (LOOK,) if self.look else ()


@dataclass(frozen=True, eq=False)
class Session:
    """picture: ``uint8 [H, W, 3]`` RGB, None before one is chosen. clicks: (x, y, label) in its pixels, in order."""

    picture: np.ndarray | None = None
    clicks: tuple[tuple[float, float, int], ...] = ()
    settings: Settings = field(default_factory=Settings)

    @property
    def points(self) -> list[tuple[float, float]]:
        return [(x, y) for x, y, _ in self.clicks]

    @property
    def labels(self) -> list[int]:
        return [label for _, _, label in self.clicks]

    def showing(self, picture: np.ndarray) -> Session:
        """Another picture, without clicks."""
        return replace(self, picture=picture, clicks=())

    def clicked(self, x: float, y: float, label: int) -> Session:
        """One click more. Raises `RuacError` without a picture, outside of it, or for another label than 0 and 1."""
        if self.picture is None:
            raise RuacError("click: no picture; choose one first")
        height, width = self.picture.shape[:2]
        if not (0 <= x <= width and 0 <= y <= height):
            raise RuacError(f"click ({x:g}, {y:g}): outside the {width}x{height} picture")
        if label not in (OBJECT, BACKGROUND):
            raise RuacError(f"click: label {label}, expected {OBJECT} (object) or {BACKGROUND} (background)")
        return replace(self, clicks=(*self.clicks, (float(x), float(y), int(label))))

    def undone(self) -> Session:
        """Without the last click, if there is one."""
        return replace(self, clicks=self.clicks[:-1])

    def cleared(self) -> Session:
        return replace(self, clicks=())

    def set_to(self, **changes: object) -> Session:
        """With other settings."""
        return replace(self, settings=replace(self.settings, **changes))
