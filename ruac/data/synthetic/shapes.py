"""Random shapes as signed distances to their outline, in pixels, negative inside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``(x, y)`` relative to the centre ``-> [H, W]``; exact or a close approximation near the outline."""


def random_shape(rng: np.random.Generator, kinds: tuple[str, ...], radius: float) -> Distance:
    """Draw a shape of one of `kinds` (keys of `SHAPES`), turned at random, within about `radius` of its centre."""
    shape = SHAPES[kinds[rng.integers(len(kinds))]](rng, np.float32(radius))
    angle = rng.uniform(0, 2 * np.pi)
    return _turned(shape, angle)


def _turned(shape: Distance, angle: float) -> Distance:
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return lambda x, y: shape(cos * x + sin * y, cos * y - sin * x)


def disk(radius: float) -> Distance:
    return lambda x, y: np.sqrt(x * x + y * y) - np.float32(radius)


def box(half_width: float, half_height: float, corner: float = 0.0) -> Distance:
    """A rectangle with round corners; corner: their radius, up to the shorter half side."""
    w, h, corner = (np.float32(a) for a in (half_width - corner, half_height - corner, corner))

    def distance(x, y):
        dx, dy = np.abs(x) - w, np.abs(y) - h
        outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
        return outside + np.minimum(np.maximum(dx, dy), 0) - corner

    return distance


def segment(x0: float, y0: float, x1: float, y1: float, thickness: float) -> Distance:
    """A straight stick with round ends."""
    dx, dy = np.float32(x1 - x0), np.float32(y1 - y0)

    def distance(x, y):
        px, py = x - np.float32(x0), y - np.float32(y0)
        along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
        return np.sqrt((px - along * dx) ** 2 + (py - along * dy) ** 2) - np.float32(thickness)

    return distance


def ring(radius: float, thickness: float) -> Distance:
    return lambda x, y: np.abs(np.sqrt(x * x + y * y) - np.float32(radius)) - np.float32(thickness)


def union(*shapes: Distance) -> Distance:
    def distance(x, y):
        result = shapes[0](x, y)
        for shape in shapes[1:]:
            result = np.minimum(result, shape(x, y))
        return result

    return distance


def moved(shape: Distance, dx: float, dy: float) -> Distance:
    return lambda x, y: shape(x - np.float32(dx), y - np.float32(dy))


def _radial(radius: Callable[[np.ndarray], np.ndarray], steepness: float) -> Distance:
    """``|p| < radius(angle)``; the distance along the ray is divided by `steepness` to approximate the true one."""

    def distance(x, y):
        return (np.sqrt(x * x + y * y) - radius(np.arctan2(y, x))) / np.float32(steepness)

    return distance


def _ellipse(rng, r):
    a, b = r, r * np.float32(rng.uniform(0.45, 1.0))

    def distance(x, y):  # level set over its gradient: first-order distance
        level = np.sqrt((x / a) ** 2 + (y / b) ** 2)
        slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2)
        return level * (level - 1) / (slope + np.float32(1e-6))

    return distance


def _box(rng, r):
    half = r * rng.uniform(0.55, 0.8), r * rng.uniform(0.35, 0.7)
    return box(*half, corner=min(half) * rng.uniform(0.05, 0.6))


def _ell(rng, r):
    """Two rectangles that meet at a right angle, like the wings of a house."""
    w, h = r * rng.uniform(0.65, 0.8), r * rng.uniform(0.25, 0.4)
    wing = moved(box(h, 0.5 * r), rng.choice([-1, 1]) * (w - h), -0.4 * r)
    return union(moved(box(w, h), 0, 0.3 * r), wing)


def _polygon(rng, r):
    """Convex: the intersection of half-planes and the circle of radius `r`, which rounds sharp corners."""
    count = rng.integers(3, 8)
    angle = (np.arange(count) + rng.uniform(-0.25, 0.25, count)) * 2 * np.pi / count
    normals = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    reach = r * rng.uniform(0.5, 0.8, count).astype(np.float32)

    def distance(x, y):
        result = np.sqrt(x * x + y * y) - r
        for (nx, ny), away in zip(normals, reach, strict=True):
            np.maximum(result, nx * x + ny * y - away, out=result)
        return result

    return distance


def _blob(rng, r):
    """A circle whose radius wavers with low frequencies of the angle."""
    order = np.arange(2, 6)
    amplitude = (r * rng.uniform(0.02, 0.3, 4) / order).astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi, 4).astype(np.float32)

    def radius(angle):
        waver = sum(a * np.cos(np.float32(n) * angle + p) for n, a, p in zip(order, amplitude, phase, strict=True))
        return np.float32(0.75) * r + waver

    return _radial(radius, 1.1)


def _star(rng, r):
    count, depth = np.float32(rng.integers(4, 9)), np.float32(rng.uniform(0.12, 0.25))
    return _radial(lambda angle: r * (np.float32(0.72) + depth * np.cos(count * angle)), 1.4)


def _ring(rng, r):
    thickness = r * rng.uniform(0.1, 0.25)
    return ring(r - thickness, thickness)


def _stick(rng, r):
    return segment(-r, 0, r, 0, max(2.2, r * rng.uniform(0.06, 0.16)))


def _spoon(rng, r):
    bowl = r * rng.uniform(0.25, 0.4)
    return union(moved(disk(bowl), r - bowl, 0), segment(-r, 0, r - bowl, 0, max(2.0, r * 0.07)))


def _mug(rng, r):
    w, h = r * rng.uniform(0.45, 0.6), r * rng.uniform(0.55, 0.75)
    handle = moved(ring(0.5 * h, max(1.8, 0.12 * h)), w, 0)
    return union(box(w, h, 0.25 * w), handle)


def _bottle(rng, r):
    w, neck = r * rng.uniform(0.3, 0.4), r * rng.uniform(0.1, 0.16)
    body = moved(box(w, 0.6 * r, 0.7 * w), 0, 0.38 * r)
    return union(body, moved(box(neck, 0.5 * r, 0.2 * neck), 0, -0.45 * r))


def _branch(rng, r):
    """A stem with side twigs: thin parts that meet."""
    thickness = max(2.0, r * rng.uniform(0.05, 0.09))
    twigs = [segment(-r, 0, r, 0, thickness)]
    for start in np.linspace(-0.6, 0.5, rng.integers(3, 6)):
        reach, side = rng.uniform(0.35, 0.6), rng.choice([-1, 1])
        twigs.append(segment(start * r, 0, (start + 0.4) * r, side * reach * r, 0.8 * thickness))
    return union(*twigs)


SHAPES: dict[str, Callable[[np.random.Generator, np.float32], Distance]] = {
    "ellipse": _ellipse,
    "box": _box,
    "ell": _ell,
    "polygon": _polygon,
    "blob": _blob,
    "star": _star,
    "ring": _ring,
    "stick": _stick,
    "spoon": _spoon,
    "mug": _mug,
    "bottle": _bottle,
    "branch": _branch,
}
