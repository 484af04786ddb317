"""Procedural textures: a pattern of plane coordinates, coloured by a random palette."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Pattern = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def smooth_noise(rng: np.random.Generator, height: int, width: int, *, cells: float, octaves: int = 4) -> np.ndarray:
    """Fractal noise ``float32 [height, width]`` with mean 0 and standard deviation about 1.

    cells: bumps of the coarsest octave across the longer side. Each octave is a random grid
    smoothed by a cubic B-spline, at twice the frequency and half the amplitude of the last.
    """
    total = np.zeros((height, width), np.float32)
    power = 0.0
    for octave in range(octaves):
        frequency = cells * 2**octave / max(height, width)
        rows, columns = _spline(height, frequency), _spline(width, frequency)
        grid = rng.standard_normal((rows.shape[1], columns.shape[1]), np.float32)
        amplitude = 0.5**octave
        total += amplitude * (rows @ grid @ columns.T)
        power += amplitude**2
    return total / np.float32(0.479 * np.sqrt(power))  # 0.479: std of the cubic spline of white noise, in 2D


@lru_cache(maxsize=256)
def _spline(length: int, frequency: float) -> np.ndarray:
    """Cubic B-spline weights ``[length, knots]`` of a knot every ``1 / frequency`` pixels."""
    position = np.arange(length, dtype=np.float32) * np.float32(frequency)
    knots = np.arange(-1, int(position[-1]) + 3, dtype=np.float32)
    distance = np.abs(position[:, None] - knots[None])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def random_palette(rng: np.random.Generator) -> np.ndarray:
    """Colours ``float32 [256, 3]`` in [0, 1], from the dark to the light end of one or two hues."""
    hue = rng.normal(0.09, 0.06) if rng.uniform() < 0.45 else rng.uniform()  # skin, wood and clay are warm
    hues = hue + np.array([0.0, rng.normal(0, 0.04), rng.choice([0.0, 0.08, 0.5]) + rng.normal(0, 0.05)])
    saturation = np.clip(rng.beta(1.7, 2.4) + rng.normal(0, 0.12, 3), 0.03, 0.95)
    middle, spread = rng.uniform(0.35, 0.8), rng.uniform(0.1, 0.35)
    value = np.clip(middle + spread * np.array([-1.0, 0.2, 1.0]), 0.08, 1.0)
    if rng.uniform() < 0.3:
        value = value[::-1]
    stops = _hsv_to_rgb(hues % 1.0, saturation, value)  # [3, 3]
    at = np.linspace(0, 1, 256)
    return np.stack([np.interp(at, [0, 0.5, 1], stops[:, c]) for c in range(3)], axis=1).astype(np.float32)


def _hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    sector = (hue[:, None] * 6 + np.array([5.0, 3.0, 1.0])) % 6
    ramp = np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return value[:, None] * (1 - saturation[:, None] * ramp)


@dataclass(frozen=True)
class Texture:
    """A pattern with its palette, turned and shifted in the plane.

    Called with coordinates ``u, v [H, W]`` in pixels; returns ``colour [H, W, 3]`` in [0, 1] and
    ``level [H, W]`` in [0, 1], which also serves as the height of the surface.
    """

    pattern: Pattern
    palette: np.ndarray
    tile: np.ndarray  # noise [T, T], periodic by reflection
    wavelength: float
    angle: float
    offset: tuple[float, float]

    def __call__(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        scale = np.float32(1 / self.wavelength)
        x = (cos * u + sin * v) * scale + np.float32(self.offset[0])
        y = (cos * v - sin * u) * scale + np.float32(self.offset[1])
        grain = _look_up(self.tile, 12 * x, 12 * y)  # bumps about as wide as one period of the pattern
        level = np.clip(self.pattern(x, y, grain), 0, 1)
        return self.palette[(level * 255).astype(np.uint8)], level


def random_texture(rng: np.random.Generator, kinds: tuple[str, ...], *, wavelength: tuple[float, float]) -> Texture:
    """Draw a texture of one of `kinds` (keys of `PATTERNS`); wavelength: range of its period in pixels."""
    low, high = np.log(wavelength)
    return Texture(
        pattern=PATTERNS[kinds[rng.integers(len(kinds))]],
        palette=random_palette(rng),
        tile=smooth_noise(rng, 96, 96, cells=8, octaves=4),
        wavelength=float(np.exp(rng.uniform(low, high))),
        angle=rng.uniform(0, 2 * np.pi),
        offset=(rng.uniform(0, 50), rng.uniform(0, 50)),
    )


def _look_up(tile: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear look-up in a tile that repeats mirrored, so that no seam shows."""
    last = tile.shape[0] - 1
    x, y = (last * (np.float32(0.5) * _triangle(a * np.float32(0.5 / last)) + np.float32(0.5)) for a in (x, y))
    column, row = (np.minimum(a.astype(np.int32), last - 1) for a in (x, y))
    x, y = x - column.astype(np.float32), y - row.astype(np.float32)
    flat, corner = tile.ravel(), row * tile.shape[1] + column
    top = flat[corner]
    top += x * (flat[corner + 1] - top)
    corner += tile.shape[1]
    bottom = flat[corner]
    bottom += x * (flat[corner + 1] - bottom)
    return top + y * (bottom - top)


def _edge(value: np.ndarray, softness: float) -> np.ndarray:
    """A soft step at zero, 0 to 1."""
    return np.clip(value / np.float32(softness) + np.float32(0.5), 0, 1)


def _triangle(x: np.ndarray) -> np.ndarray:
    """Triangle wave of period 1 between -1 and 1."""
    return 4 * np.abs(x - np.floor(x + 0.5)) - 1


def _plain(x, y, grain):
    return 0.5 + 0.09 * grain


def _grain(x, y, grain):
    return 0.5 + 0.28 * grain


def _marble(x, y, grain):
    return 0.5 + 0.5 * np.sin(3 * x + 2.2 * grain)


def _wood(x, y, grain):
    rings = _triangle(2.2 * x + 0.12 * np.sin(2 * y) + 0.18 * grain)
    return 0.5 + 0.28 * rings + 0.1 * grain


def _stripes(x, y, grain):
    return 0.1 + 0.75 * _edge(_triangle(x), 0.3) + 0.06 * grain


def _checks(x, y, grain):
    return 0.1 + 0.75 * _edge(_triangle(x) * _triangle(y), 0.2) + 0.06 * grain


def _dots(x, y, grain):
    row = np.floor(y)
    dx, dy = x + 0.5 * np.mod(row, 2), y - row - 0.5
    dx = dx - np.floor(dx) - 0.5
    return 0.15 + 0.7 * _edge(0.09 - dx * dx - dy * dy, 0.08) + 0.06 * grain


def _gradient(x, y, grain):
    return 0.5 + 0.4 * _triangle(0.2 * x) + 0.05 * grain


def _bricks(x, y, grain):
    row = np.floor(2 * y)
    across = x + 0.5 * np.mod(row, 2)
    brick = np.floor(across)
    dx, dy = np.abs(across - brick - 0.5), np.abs(2 * y - row - 0.5)
    tone = np.mod(np.sin(brick * 12.9 + row * 78.2) * 43.7, 1)
    return _edge(0.45 - np.maximum(dx + 0.02, dy), 0.08) * (0.45 + 0.4 * tone) + 0.1 + 0.08 * grain


def _zigzag(x, y, grain):
    return 0.1 + 0.75 * _edge(_triangle(x + 0.3 * _triangle(y)), 0.3) + 0.06 * grain


def _weave(x, y, grain):
    over = _edge(_triangle(x / 2) * _triangle(y / 2), 0.2)
    return over * (0.9 - 0.8 * (x - np.floor(x) - 0.5) ** 2 * 4) + (1 - over) * (1 - y + np.floor(y)) + 0.06 * grain


def _scales(x, y, grain):
    row = np.floor(2 * y)
    dx, dy = x + 0.5 * np.mod(row, 2), y - row / 2
    dx = dx - np.floor(dx) - 0.5
    return np.mod(1.6 * np.sqrt(dx * dx + 0.7 * dy * dy + 1e-6) + 0.15, 1) + 0.07 * grain


def _spots(x, y, grain):
    return 0.15 + 0.7 * _edge(grain - 0.5, 0.25)


PATTERNS: dict[str, Pattern] = {
    "plain": _plain,
    "grain": _grain,
    "marble": _marble,
    "wood": _wood,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "gradient": _gradient,
    "bricks": _bricks,
    "zigzag": _zigzag,
    "weave": _weave,
    "scales": _scales,
    "spots": _spots,
}
"""Patterns ``(x, y, grain) -> level``, all ``[H, W]``; x and y in periods, level nominally in [0, 1]."""

SOURCE_PATTERNS = ("plain", "grain", "marble", "wood", "stripes", "checks", "dots", "gradient")
UNSEEN_PATTERNS = ("bricks", "zigzag", "weave", "scales", "spots")
