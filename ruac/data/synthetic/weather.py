"""Physical models of weather, and pixels as light: what shifted domains and corruptions are both made of."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

Pixels = tuple[np.ndarray, np.ndarray]
"""A picture ``[H, W, 3]`` and its masks ``bool [K, H, W]``."""


def koschmieder(image: np.ndarray, depth: np.ndarray, *, beta: float, air: float | np.ndarray) -> np.ndarray:
    """Koschmieder's law ``I t + A (1 - t)``, ``t = exp(-beta depth)``.

    image: ``[H, W, 3]`` in [0, 1]. depth: ``[H, W]``, in units of ``1 / beta``. air: the light A, one value or three.
    """
    through = np.exp(-beta * depth)[..., None]
    return image * through + air * (1 - through)


def rain_streaks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Streaks of far and near drops in one direction, ``float32 [height, width]`` in [0, 1]."""
    streaks = np.zeros((height, width), np.float32)
    slope = rng.uniform(-0.35, 0.35)
    for length, share, strength in ((0.04, 0.004, 0.8), (0.09, 0.0015, 1.4)):  # far and near drops
        size = max(5, int(length * height)) | 1
        drops = (rng.random((height, width), np.float32) < share * rng.uniform(0.6, 1.4)) * np.float32(strength)
        steps = np.arange(size)
        line = np.zeros((size, size), np.float32)
        line[steps, np.clip((size / 2 + slope * (steps - size / 2)).astype(int), 0, size - 1)] = 1
        streaks += convolved(drops[..., None], line)[..., 0]
    return np.clip(ndimage.gaussian_filter(streaks, 0.5), 0, 1)


def convolved(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """``[H, W, C]`` convolved with an odd, square kernel; the picture is mirrored at its border."""
    reach = len(kernel) // 2
    padded = np.pad(image, [(reach, reach), (reach, reach), (0, 0)], mode="symmetric")
    size = [fft.next_fast_len(n + 2 * reach, real=True) for n in padded.shape[:2]]
    spectrum = fft.rfft2(padded, size, axes=(0, 1)) * fft.rfft2(kernel, size)[..., None]
    whole = fft.irfft2(spectrum, size, axes=(0, 1))
    height, width = image.shape[:2]
    return whole[2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


def to_light(image: np.ndarray) -> np.ndarray:
    """``uint8`` as float32 in [0, 1]."""
    return image.astype(np.float32) / 255


def to_uint8(light: np.ndarray) -> np.ndarray:
    """The inverse, rounded; what is darker than black or brighter than white is cut off."""
    return (np.clip(light, 0, 1) * 255 + 0.5).astype(np.uint8)
