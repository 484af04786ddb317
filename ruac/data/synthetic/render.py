"""Painting placed shapes: backgrounds, light, soft shadows and shaded surfaces."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ruac.data.synthetic.shapes import Distance, segment
from ruac.data.synthetic.textures import SOURCE_PATTERNS, Texture, random_texture, smooth_noise

REACH = 1.3  # every shape stays within this many radii of its centre


@dataclass(frozen=True)
class Crop:
    """A rectangle of the picture."""

    rows: slice
    columns: slice

    @classmethod
    def around(cls, x: float, y: float, reach: float, side: int) -> Crop:
        rows = slice(max(0, int(y - reach)), max(0, min(side, int(y + reach) + 1)))
        return cls(rows, slice(max(0, int(x - reach)), max(0, min(side, int(x + reach) + 1))))

    def grid(self, x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
        """Pixel coordinates ``[1, w], [h, 1]`` relative to (x, y)."""
        across = np.arange(self.columns.start, self.columns.stop, dtype=np.float32) - np.float32(x)
        down = np.arange(self.rows.start, self.rows.stop, dtype=np.float32) - np.float32(y)
        return across[None], down[:, None]


class Placed:
    """A shape in the picture, with its signed distance over the crop it lies in."""

    def __init__(self, shape: Distance, x: float, y: float, radius: float, side: int):
        self.shape, self.x, self.y, self.radius = shape, x, y, radius
        self.crop = Crop.around(x, y, REACH * radius + 2, side)
        self.distance = shape(*self.crop.grid(x, y))  # [h, w]


@dataclass(frozen=True)
class Light:
    """direction: unit vector to the light (x, y, towards the viewer). ambient, diffuse: RGB ``[3]``.

    shadow: share of the light that is lost in the full shadow.
    """

    direction: np.ndarray
    ambient: np.ndarray
    diffuse: np.ndarray
    shadow: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Light:
        """From somewhere above, a little warm or cold; a flat surface receives about 1."""
        azimuth, height = rng.uniform(0, np.pi), rng.uniform(0.55, 0.85)
        slope = np.sqrt(1 - height**2)
        direction = np.array([slope * np.cos(azimuth), -slope * np.sin(azimuth), height], np.float32)
        warmth = rng.normal(0, 0.05)
        tint = np.array([1 + warmth, 1, 1 - warmth], np.float32)
        ambient = np.float32(rng.uniform(0.25, 0.45))
        return cls(direction, ambient / tint, (1 - ambient) / np.float32(height) * tint, rng.uniform(0.45, 0.75))


def paint_scene(placed: list[Placed], layout: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """Paint the objects, back to front, on a background that suits the layout: ``uint8 [S, S, 3]``."""
    light = Light.random(rng)
    background = {"still_life": _table, "overhead": _ground, "cells": _dark_field}[layout]
    canvas = background(side, rng) * _spot(side, rng)
    for item in placed:
        if layout != "cells":
            _cast_shadow(canvas, item, light)
        _paint(canvas, item, light, layout, rng)
    canvas += rng.normal(0, 0.006, (side, side, 1)).astype(np.float32)  # sensor noise
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)


def _spot(side: int, rng: np.random.Generator) -> np.ndarray:
    """Uneven illumination ``[S, S, 1]``: brightest at a random place, darker away from it."""
    axis = np.linspace(0, 1, side, dtype=np.float32)
    x, y = rng.uniform(0.1, 0.9), rng.uniform(0.0, 0.7)
    away = (axis[None] - np.float32(x)) ** 2 + (axis[:, None] - np.float32(y)) ** 2
    return np.float32(1.08) / (1 + np.float32(rng.uniform(0.2, 0.9)) * away[..., None])


def _table(side: int, rng: np.random.Generator) -> np.ndarray:
    """A surface seen from above, or a table in perspective before a wall. ``[S, S, 3]``."""
    axis = np.arange(side, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    wavelength = (side / 20, side / 3)
    table = _softened(random_texture(rng, SOURCE_PATTERNS, wavelength=wavelength), rng)
    if rng.uniform() < 0.4:
        return table(x, y)[0]
    horizon = side * np.float32(rng.uniform(0.2, 0.5))
    row = int(horizon) + 1
    away = side / (y[row:] - horizon + side * np.float32(0.35))  # the vanishing line lies above the table's edge
    floor = table((x[row:] - side / 2) * away, side * np.float32(0.9) * away)[0]
    floor *= (0.75 + 0.25 * np.clip((axis[row:] - horizon) / (0.3 * side), 0, 1))[:, None, None]
    wall = _softened(random_texture(rng, SOURCE_PATTERNS, wavelength=wavelength), rng)(x[:row], y[:row])[0]
    shade = np.clip((horizon - axis[:row]) / (0.06 * side), 0, 1)  # darker where the wall meets the table
    return np.concatenate([wall * (0.6 + 0.2 * shade)[:, None, None], floor])


def _softened(texture: Texture, rng: np.random.Generator) -> Texture:
    """The same texture with its palette drawn together, so that the background is calmer than the objects."""
    middle = texture.palette.mean(axis=0)
    palette = middle + np.float32(rng.uniform(0.3, 0.75)) * (texture.palette - middle)
    return _muted(replace(texture, palette=palette), rng.uniform(0.5, 1.0))


def _muted(texture: Texture, saturation: float) -> Texture:
    """The same texture with the given share of its colourfulness."""
    grey = texture.palette.mean(axis=1, keepdims=True)
    return replace(texture, palette=grey + np.float32(saturation) * (texture.palette - grey))


def _ground(side: int, rng: np.random.Generator) -> np.ndarray:
    """Grass, bare soil, a ploughed field and roads from above. ``[S, S, 3]``."""
    axis = np.arange(side, dtype=np.float32)
    x, y = axis[None], axis[:, None]
    fine = smooth_noise(rng, side, side, cells=24, octaves=3)[..., None]
    land = smooth_noise(rng, side, side, cells=3, octaves=4)[..., None]
    grass = np.array([0.30, 0.42, 0.20], np.float32) * np.float32(rng.uniform(0.8, 1.2))
    soil = np.array([0.55, 0.47, 0.36], np.float32) * np.float32(rng.uniform(0.8, 1.1))
    share = np.clip(1.5 * land + np.float32(rng.uniform(-0.3, 1.3)), 0, 1)
    ground = (grass + share * (soil - grass)) * (1 + 0.1 * fine)
    if rng.uniform() < 0.5:
        angle, pitch = rng.uniform(0, np.pi), np.float32(rng.uniform(5, 9))
        rows = np.sin((np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y) * np.float32(2 * np.pi) / pitch)
        ground *= 1 + 0.12 * rows[..., None] * (share > 0.5)
    first = rng.uniform(0, np.pi)
    for angle in (first, first + np.pi / 2)[: rng.integers(1, 3)]:
        dx, dy = 2 * side * np.cos(angle), 2 * side * np.sin(angle)
        cx, cy = rng.uniform(0.15 * side, 0.85 * side, 2)
        away = segment(cx - dx, cy - dy, cx + dx, cy + dy, 0.0)(x, y)[..., None]
        tar = np.float32(rng.uniform(0.38, 0.55)) * (1 + 0.04 * fine) + 0.3 * np.clip(1.2 - away, 0, 1)  # centre line
        road = np.clip(side * np.float32(rng.uniform(0.025, 0.045)) - away + 0.5, 0, 1)
        ground += road * (tar - ground)
    return ground


def _dark_field(side: int, rng: np.random.Generator) -> np.ndarray:
    return 0.1 + 0.01 * np.repeat(smooth_noise(rng, side, side, cells=4, octaves=2)[..., None], 3, axis=2)


def _cast_shadow(canvas: np.ndarray, item: Placed, light: Light) -> None:
    """Darken what lies behind: the shape itself, moved away from the light, its outline softened."""
    x, y = (float(item.radius * -0.35 * light.direction[k]) for k in (0, 1))
    x, y = item.x + x, item.y + y
    crop = Crop.around(x, y, 1.6 * item.radius + 2, canvas.shape[0])
    softness = np.float32(0.3 * item.radius + 2)
    shade = np.clip(0.5 - item.shape(*crop.grid(x, y)) / softness, 0, 1)
    shade = np.float32(light.shadow) * shade * shade * (3 - 2 * shade)
    gap = np.clip(item.shape(*crop.grid(item.x, item.y)), 0, None)
    contact = np.float32(0.35) * np.exp(-gap / np.float32(0.08 * item.radius + 1))  # little light gets in beside it
    canvas[crop.rows, crop.columns] *= (1 - np.maximum(shade, contact))[..., None]


def _paint(canvas: np.ndarray, item: Placed, light: Light, layout: str, rng: np.random.Generator) -> None:
    """Paint an object: texture, a domed surface with Lambert shading, sometimes a highlight (Blinn-Phong)."""
    x, y = np.broadcast_arrays(*item.crop.grid(item.x, item.y))
    kinds = SOURCE_PATTERNS if layout == "still_life" else ("plain", "grain")
    wavelength = (0.25 * item.radius + 2, 1.6 * item.radius + 4)
    texture = random_texture(rng, kinds, wavelength=wavelength)
    colour, level = (texture if layout == "still_life" else _muted(texture, 0.45))(x, y)
    height, rise = _surface(item, layout, rng)
    height += np.float32(rng.uniform(0, 0.06) * wavelength[0]) * level
    slope_y, slope_x = np.gradient(height)
    scale = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)

    lx, ly, lz = light.direction
    lambert = np.clip((lz - slope_x * lx - slope_y * ly) * scale, 0, None)[..., None]
    shaded = colour * (light.ambient * (0.65 + 0.35 * rise[..., None]) + light.diffuse * lambert)
    if layout == "still_life" and rng.uniform() < 0.6:
        halfway = np.array([lx, ly, lz + 1], np.float32)  # between the light and the viewer, straight above
        halfway /= np.linalg.norm(halfway)
        facing = np.clip((halfway[2] - slope_x * halfway[0] - slope_y * halfway[1]) * scale, 0, 1)
        shaded += np.float32(rng.uniform(0.15, 0.6)) * facing[..., None] ** int(rng.integers(12, 60))
    under = canvas[item.crop.rows, item.crop.columns]
    under += np.clip(0.5 - item.distance, 0, 1)[..., None] * (shaded - under)


def _surface(item: Placed, layout: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Height in pixels and its rise from the rim, 0 to 1; both ``[h, w]``.

    Domes and bevelled plates; from above, a signed distance is a hipped roof already.
    """
    depth = np.clip(-item.distance, 0, None)
    thick = max(float(depth.max()), 1.0)
    if layout == "overhead":
        return depth * np.float32(rng.uniform(0.15, 0.6)), np.ones_like(depth)
    rim = np.float32(thick if rng.uniform() < 0.6 else max(1.5, rng.uniform(0.08, 0.3) * thick))
    rise = np.sqrt(np.clip(1 - (1 - np.clip(depth / rim, 0, 1)) ** 2, 1e-4, None))
    if rng.uniform() < 0.75:  # rounds the ridges that a distance has inside; the others keep their facets
        size = 2 * int(rng.uniform(0.05, 0.2) * thick) + 1
        rise = ndimage.uniform_filter(ndimage.uniform_filter(rise, size, mode="nearest"), size, mode="nearest")
    return rim * rise, rise
