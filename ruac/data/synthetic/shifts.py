"""Shifted domains: the same objects in another texture, light, weather, medium or instrument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ruac.data.synthetic.textures import UNSEEN_PATTERNS, random_texture, smooth_noise
from ruac.data.synthetic.weather import Pixels, convolved, koschmieder, rain_streaks, to_light, to_uint8

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Shift:
    """Maps ``(image uint8 [H, W, 3], masks bool [K, H, W], rng)`` to the same in the shifted domain.

    No object vanishes, and only a shift that `moves` things changes the masks. layout: the layout
    that procedural scenes of this domain have, or None for the source's.
    """

    apply: Callable[..., Pixels]
    layout: str | None = None
    moves: bool = False

    def __call__(
        self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0
    ) -> Pixels:
        """strength: share of the shift, 0 for none of it; above 1 it is carried on in the same direction.

        Of the change of light, or, where things move, of the way that they go.
        """
        light = to_light(image)
        if self.moves:
            shifted, masks = self.apply(light, masks, rng, strength=strength)
        else:
            shifted, masks = self.apply(light, masks, rng)
            if strength != 1:
                shifted = light + np.float32(strength) * (np.clip(shifted, 0, 1) - light)
        return to_uint8(shifted), masks


def texture_swap(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pixels:
    """Cover every object with a pattern that source scenes do not contain; its smooth shading stays."""
    height, width = masks.shape[1:]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    luma = image @ LUMA
    result = image.copy()
    for mask in masks:
        rows, columns = _bounds(mask)
        inside = mask[rows, columns].astype(np.float32)
        size = np.sqrt(inside.sum())
        sigma = 0.08 * size + 1
        weight = ndimage.gaussian_filter(inside, sigma)
        shading = ndimage.gaussian_filter(luma[rows, columns] * inside, sigma) / np.maximum(weight, 1e-3)
        shading /= max(float(shading[inside > 0].mean()), 0.05)
        texture = random_texture(rng, UNSEEN_PATTERNS, wavelength=(0.1 * size + 3, 0.4 * size + 4))
        colour = texture(x[rows, columns], y[rows, columns])[0] * np.clip(shading, 0.3, 1.6)[..., None]
        crop = result[rows, columns]
        np.copyto(crop, colour, where=mask[rows, columns, None])
    return result, masks


def colour_cast(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pixels:
    """Coloured light and mixed channels: a turn about the grey axis, then gains and a gamma per channel."""
    angle = rng.choice([-1, 1]) * rng.uniform(0.6, 2.2)
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.cross(np.eye(3), axis)
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(axis, axis)
    gains, gamma = rng.uniform(0.45, 1.25, 3), rng.uniform(0.7, 1.5, 3)
    turned = np.clip(image @ turn.astype(np.float32), 0, 1)
    return np.float32(gains) * turned ** np.float32(gamma), masks


def fog_around_objects(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pixels:
    """Fog in which depth falls from the top of the picture to the bottom; an object is as near as its lowest pixel."""
    height, width = masks.shape[1:]
    rows = np.linspace(0, 1, height, dtype=np.float32)
    lowest = np.where(masks.any(axis=2), rows, 0).max(axis=1)  # [K]
    row = np.maximum(rows[:, None], np.max(masks * lowest[:, None, None], axis=0, initial=0))  # [H, W]
    depth = np.clip(1.15 - row, 0.05, None) * np.clip(1 + 0.2 * smooth_noise(rng, height, width, cells=3), 0.3, 2)
    beta = np.float32(rng.uniform(1.8, 3.5))
    air = np.float32(rng.uniform(0.72, 0.9)) * np.float32([1, 1, rng.uniform(0.98, 1.06)])
    return koschmieder(image, depth, beta=beta, air=air), masks


def rain_on_grey(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pixels:
    """Bright streaks over a greyer, darker, slightly blurred picture."""
    grey = (image @ LUMA)[..., None]
    wet = 0.75 * (grey + 0.55 * (image - grey)) + 0.08
    wet = ndimage.gaussian_filter(wet, (0.7, 0.7, 0))
    streaks = rain_streaks(rng, *masks.shape[1:])[..., None]
    return wet + np.float32(rng.uniform(0.3, 0.5)) * streaks, masks


def night(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pixels:
    """Little, bluish light with one warm lamp, and the noise of a high gain."""
    height, width = masks.shape[1:]
    x, y = np.linspace(0, 1, width, dtype=np.float32)[None], np.linspace(0, 1, height, dtype=np.float32)[:, None]
    lamp = np.exp(-((x - np.float32(rng.uniform())) ** 2 + (y - np.float32(rng.uniform())) ** 2) / np.float32(0.12))
    light = np.float32(rng.uniform(0.12, 0.22)) * np.float32([0.7, 0.85, 1.3])
    light = light + 0.5 * lamp[..., None] * np.float32([1.0, 0.8, 0.5])
    dim = image**1.4 * light
    photons = np.float32(rng.uniform(60, 200))
    return _shot_noise(dim, photons, rng) ** np.float32(0.8), masks


def noise(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pixels:
    """Shot noise and read noise of a small sensor, and a few dead pixels."""
    noisy = _shot_noise(image, np.float32(rng.uniform(12, 50)), rng)
    noisy += np.float32(rng.uniform(0.04, 0.1)) * rng.standard_normal(image.shape, np.float32)
    dead = rng.random(image.shape[:2], np.float32)
    noisy[dead < 0.004] = 0
    noisy[dead > 0.996] = 1
    return noisy, masks


def blur(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pixels:
    """Out of focus (a disk) or moved during the exposure (a line)."""
    reach = max(2, round(max(image.shape[:2]) * rng.uniform(0.010, 0.022)))
    axis = np.arange(-reach - 1, reach + 2, dtype=np.float32)
    x, y = axis[None], axis[:, None]
    if rng.uniform() < 0.5:
        kernel = np.clip(reach + 0.5 - np.sqrt(x**2 + y**2), 0, 1)
    else:
        angle = rng.uniform(0, np.pi)
        across = np.abs(x * np.float32(np.sin(angle)) - y * np.float32(np.cos(angle)))
        kernel = np.clip(1 - across, 0, 1) * (x**2 + y**2 <= reach**2)
    return convolved(image, kernel / kernel.sum()), masks


def elastic(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0) -> Pixels:
    """Bend picture and masks by one smooth field, which is zero at the border, `strength` times as far.

    The field is halved until no object loses more than half of its pixels.
    """
    height, width = masks.shape[1:]
    taper = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32) ** 0.5
    field = np.stack([smooth_noise(rng, height, width, cells=4, octaves=2) for _ in range(2)])  # [2, H, W]
    field *= np.float32(strength * rng.uniform(0.025, 0.045) * max(height, width)) * taper
    still = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).astype(np.float32)
    last = np.array([height - 1, width - 1], np.float32)[:, None, None]
    area = masks.sum(axis=(1, 2))
    while True:
        source = np.clip(still + field, 0, last)
        row, column = (source + 0.5).astype(np.int32)
        moved = masks[:, row, column]
        if (2 * moved.sum(axis=(1, 2)) >= area).all():
            break
        field /= 2
    channels = [ndimage.map_coordinates(image[..., c], source, order=1) for c in range(3)]
    return np.stack(channels, axis=2), moved


def microscopy(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pixels:
    """A dark-field view: objects glow on black, blurred, unevenly lit, low in contrast and speckled."""
    height, width = masks.shape[1:]
    luma = image @ LUMA
    glow = 0.05 + 0.04 * smooth_noise(rng, height, width, cells=4, octaves=3)
    for mask in masks:
        rows, columns = _bounds(mask)
        inside = np.pad(mask[rows, columns], 1)
        depth = ndimage.distance_transform_edt(inside)[1:-1, 1:-1].astype(np.float32)
        dome = np.sqrt(np.clip(depth / depth.max(), 0, 1))
        membrane = np.exp(-((depth - 2) ** 2) / 3)
        fibre = np.clip(1 + 0.3 * smooth_noise(rng, *depth.shape, cells=7, octaves=3), 0.2, 2)
        signal_ = rng.uniform(0.45, 0.9) * dome * fibre + rng.uniform(0, 0.5) * membrane
        signal_ *= 0.7 + 0.6 * luma[rows, columns]
        np.copyto(glow[rows, columns], signal_.astype(np.float32) + 0.08, where=mask[rows, columns])
    sharp = ndimage.gaussian_filter(glow, rng.uniform(0.6, 1.4))
    halo = ndimage.gaussian_filter(glow, 0.03 * max(height, width))  # light from planes out of focus
    lamp = np.clip(0.75 + 0.25 * smooth_noise(rng, height, width, cells=1.5, octaves=1), 0.3, 1.3)
    field = np.clip((0.75 * sharp + 0.3 * halo) * lamp, 0, None)
    speckle = rng.gamma(12, 1 / 12, (height, width)).astype(np.float32)
    field = 0.1 + np.float32(rng.uniform(0.5, 0.8)) * field * (0.5 + 0.5 * speckle)
    field += 0.02 * rng.standard_normal((height, width), np.float32)
    stains = np.float32([[1, 1, 1], [1, 1, 1], [0.35, 1.1, 0.45], [0.45, 0.75, 1.4], [0.7, 1.1, 1.0]])
    return field[..., None] * stains[rng.integers(len(stains))], masks


def overhead(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pixels:
    """The look of an aerial photograph: a bluish haze, flat contrast, sharpened afterwards."""
    contrast = np.float32(rng.uniform(0.7, 0.9))
    hazy = contrast * image + (1 - contrast) * np.float32([0.50, 0.56, 0.64])
    soft = ndimage.gaussian_filter(hazy, (1.2, 1.2, 0))
    return hazy + np.float32(rng.uniform(0.3, 0.9)) * (hazy - soft), masks


SHIFTS: dict[str, Shift] = {
    "texture_swap": Shift(texture_swap),
    "colour_cast": Shift(colour_cast),
    "fog": Shift(fog_around_objects),
    "rain": Shift(rain_on_grey),
    "night": Shift(night),
    "noise": Shift(noise),
    "blur": Shift(blur),
    "elastic": Shift(elastic, moves=True),
    "microscopy": Shift(microscopy, layout="cells"),
    "overhead": Shift(overhead, layout="overhead"),
}


def _shot_noise(image: np.ndarray, photons: np.float32, rng: np.random.Generator) -> np.ndarray:
    """Poisson noise at `photons` per full-scale pixel."""
    return rng.poisson(np.clip(image, 0, None) * photons).astype(np.float32) / photons


def _bounds(mask: np.ndarray) -> tuple[slice, slice]:
    return ndimage.find_objects(mask.astype(np.uint8))[0]
