"""Corruption suites for robustness curves: fog by its attenuation, rain, and the 15 of ImageNet-C at 5 severities."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from PIL import Image

from ruac.base.errors import RuacError
from ruac.data.sample import MaskDataset, Record, Sample
from ruac.data.synthetic.textures import smooth_noise
from ruac.data.synthetic.weather import Pixels, koschmieder, rain_streaks, to_light, to_uint8

NEAR, FAR = 20.0, 200.0  # metres: depth of the assumed plane at the bottom and at the top of a picture
AIR = np.float32(0.85)  # light of fog and of distant rain, grey, in [0, 1]
FOCAL = 2262.5  # pixels: Cityscapes' camera, to which the raindrop radii of RainCityscapes belong
STREAKS_SIDE = 384  # pixels: longer side at which streaks are drawn, so that their density has no resolution
LIBRARY, SMALLEST = "imagecorruptions-imaug", 32  # the package that holds ImageNet-C, and its smallest picture


@dataclass(frozen=True)
class Corruption:
    """apply: maps ``(image uint8 [H, W, 3], masks bool [K, H, W], value, rng)`` to the corrupted two.

    severities: the value that `apply` gets, by the severity's name, from weak to strong. imagenet_c: whether
    `apply` needs the extra ``corruptions``. Masks change only where a corruption moves things.
    """

    apply: Callable[[np.ndarray, np.ndarray, Any, np.random.Generator], Pixels]
    severities: dict[str, Any]
    imagenet_c: bool = False


@dataclass(frozen=True)
class RainSet:
    """One parameter set of RainCityscapes: attenuation of streaks and of fog in 1/m, radius of a drop in m."""

    streaks: float
    fog: float
    radius: float


def depth_plane(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """An assumed depth ``float32 [height, width]`` in metres: a slightly uneven plane, seen in perspective.

    The inverse depth of a plane is linear in the picture: it falls from ``1 / NEAR`` at the bottom to
    ``1 / FAR`` at the top, with a random tilt to the side. Nothing of it is measured from the picture.
    """
    up = np.linspace(1, 0, height, dtype=np.float32)[:, None]
    right = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
    share = np.clip(up + np.float32(rng.uniform(-0.3, 0.3)) * right, 0, 1)
    relief = np.exp(0.1 * smooth_noise(rng, height, width, cells=3, octaves=2))
    return relief / (share / np.float32(FAR) + (1 - share) / np.float32(NEAR))


def fog_over_plane(image: np.ndarray, masks: np.ndarray, beta: float, rng: np.random.Generator) -> Pixels:
    """Fog of attenuation `beta` (1/m) by Koschmieder's law, over an assumed depth (`depth_plane`)."""
    depth = depth_plane(*image.shape[:2], rng)
    return to_uint8(koschmieder(to_light(image), depth, beta=beta, air=AIR)), masks


def rain_over_plane(image: np.ndarray, masks: np.ndarray, value: RainSet, rng: np.random.Generator) -> Pixels:
    """Rain as in RainCityscapes (Hu et al., CVPR 2019), over an assumed depth d (`depth_plane`).

    ``I (1 - R - A) + R + A0 A`` with fog ``A = 1 - exp(-beta d)`` and streaks ``R = pattern exp(-alpha max(d1, d))``.
    A drop nearer than ``d1 = 2 FOCAL radius`` is wider than a pixel and does not get any brighter.
    """
    height, width = image.shape[:2]
    depth = depth_plane(height, width, rng)
    scale = STREAKS_SIDE / max(height, width)
    pattern = Image.fromarray(rain_streaks(rng, *(max(8, round(scale * side)) for side in (height, width))))
    pattern = np.clip(np.asarray(pattern.resize((width, height), Image.Resampling.BILINEAR)), 0, 1)
    streaks = pattern * np.exp(-value.streaks * np.maximum(2 * FOCAL * value.radius, depth))
    clean = to_light(image)
    veiled = koschmieder(clean, depth, beta=value.fog, air=AIR)  # I (1 - A) + A0 A
    return to_uint8(veiled + streaks[..., None] * (1 - clean)), masks


def imagenet_c(
    name: str, image: np.ndarray, masks: np.ndarray, severity: int, rng: np.random.Generator, *, seeded: bool = False
) -> Pixels:
    """Corruption `name` of ImageNet-C (Hendrycks & Dietterich, ICLR 2019), as ``imagecorruptions`` computes it.

    seeded: whether the library's function draws from a generator of its own, to which a seed is handed.
    """
    from imagecorruptions import corrupt

    seed = int(rng.integers(2**32))
    with _global_numpy_seed(seed):
        result = corrupt(image, severity, name, **({"seed": seed} if seeded else {}))
    return result, masks


def elastic_transform(image: np.ndarray, masks: np.ndarray, severity: int, rng: np.random.Generator) -> Pixels:
    """ImageNet-C's elastic transform, with the masks bent by the picture's own field.

    The field is read off a picture of pixel positions bent under the same seed. An object that it
    would make vanish keeps its mask.
    """
    from imagecorruptions.corruptions import elastic_transform as bend

    height, width = image.shape[:2]
    seed = int(rng.integers(2**32))
    with _global_numpy_seed(seed):
        bent = np.uint8(bend(image, severity))
    size = np.float32([height, width, 1])
    position = np.moveaxis(np.indices((height, width, 1), np.float32)[..., 0], 0, -1)  # [H, W, (row, column, 0)]
    with _global_numpy_seed(seed):
        source = bend(255 * position / size, severity) / 255 * size  # it expects and returns values up to 255
    row, column = (np.clip(np.rint(source[..., i]).astype(int), 0, masks.shape[i + 1] - 1) for i in range(2))
    moved = masks[:, row, column]
    vanished = ~moved.any(axis=(1, 2))
    moved[vanished] = masks[vanished]
    return bent, moved


def _five(apply: Callable[..., Pixels]) -> Corruption:
    return Corruption(apply, {str(severity): severity for severity in range(1, 6)}, imagenet_c=True)


CORRUPTIONS: dict[str, Corruption] = {
    "fog": Corruption(fog_over_plane, {"1": 0.005, "2": 0.01, "3": 0.02, "4": 0.03, "5": 0.06}),
    "rain": Corruption(
        rain_over_plane,
        {
            "light": RainSet(streaks=0.01, fog=0.005, radius=0.01),
            "medium": RainSet(streaks=0.02, fog=0.01, radius=0.005),
            "heavy": RainSet(streaks=0.03, fog=0.015, radius=0.002),
        },
    ),
    "gaussian_noise": _five(partial(imagenet_c, "gaussian_noise")),
    "shot_noise": _five(partial(imagenet_c, "shot_noise")),
    "impulse_noise": _five(partial(imagenet_c, "impulse_noise", seeded=True)),
    "defocus_blur": _five(partial(imagenet_c, "defocus_blur")),
    "glass_blur": _five(partial(imagenet_c, "glass_blur", seeded=True)),
    "motion_blur": _five(partial(imagenet_c, "motion_blur")),
    "zoom_blur": _five(partial(imagenet_c, "zoom_blur")),
    "snow": _five(partial(imagenet_c, "snow")),
    "frost": _five(partial(imagenet_c, "frost")),
    "imagenet_fog": _five(partial(imagenet_c, "fog")),
    "brightness": _five(partial(imagenet_c, "brightness")),
    "contrast": _five(partial(imagenet_c, "contrast")),
    "elastic_transform": _five(elastic_transform),
    "pixelate": _five(partial(imagenet_c, "pixelate")),
    "jpeg_compression": _five(partial(imagenet_c, "jpeg_compression")),
}


def parse_corruption(text: str) -> tuple[str, str]:
    """``"fog:3"`` as ``("fog", "3")``. Raises `RuacError` for a name or a severity that `CORRUPTIONS` does not have."""
    name, _, severity = text.partition(":")
    _check(name, severity, text)
    return name, severity


def corrupt(image: np.ndarray, masks: np.ndarray, text: str, rng: np.random.Generator) -> Pixels:
    """A picture and its masks under ``"fog:3"``.

    Raises `RuacError` for an unknown corruption, a missing library, or a picture below 32 px of ImageNet-C.
    """
    name, severity = parse_corruption(text)
    corruption, (height, width) = CORRUPTIONS[name], image.shape[:2]
    if corruption.imagenet_c:
        _require_library(name)
        if min(height, width) < SMALLEST:
            raise RuacError(f"{width} x {height} pixels, {name} expects at least {SMALLEST} on each side")
    return corruption.apply(image, masks, corruption.severities[severity], rng)


class CorruptedDataset:
    """`dataset` with every picture corrupted as it is read; a `MaskDataset` named ``DATASET+fog3``.

    Records are the data set's own, so that its images and objects can be compared with the clean ones
    in pairs. Randomness is a function of the image's id and the corruption's name: it depends on no order
    and no process, and the severities of one corruption share their depth, drops or frost. Raises
    `RuacError` for an unknown corruption, a missing library, or (when read) a picture below 32 px of ImageNet-C.
    """

    def __init__(self, dataset: MaskDataset, name: str, severity: str | int) -> None:
        severity = str(severity)
        _check(name, severity, f"{name}:{severity}")
        if CORRUPTIONS[name].imagenet_c:
            _require_library(name)
        self.name = f"{dataset.name}+{name}{severity}"
        self.records: list[Record] = dataset.records
        self._dataset, self._corruption, self._severity = dataset, name, severity

    @property
    def corruption(self) -> dict[str, str | int]:
        """What was done to which data set. level: place of the severity, weak to strong, from 1."""
        level = 1 + list(CORRUPTIONS[self._corruption].severities).index(self._severity)
        return {"of": self._dataset.name, "name": self._corruption, "severity": self._severity, "level": level}

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self._dataset[index]
        text, rng = f"{self._corruption}:{self._severity}", _generator(sample.record.id, self._corruption)
        try:
            return Sample(sample.record, *corrupt(sample.image, sample.masks, text, rng))
        except RuacError as error:
            raise RuacError(f"{sample.record.path}: {error}") from None


def _check(name: str, severity: str, text: str) -> None:
    if name not in CORRUPTIONS:
        near = get_close_matches(name, CORRUPTIONS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RuacError(f"corruption {text!r}: {name!r} is unknown, {hint}expected one of: {', '.join(CORRUPTIONS)}")
    if severity not in (severities := CORRUPTIONS[name].severities):
        expected = ", ".join(f"{name}:{key}" for key in severities)
        raise RuacError(f"corruption {text!r}: severity {severity!r}, expected one of: {expected}")


def _require_library(name: str) -> None:
    """Name the package that is needed; its predecessor installs the same module, but breaks with today's numpy."""
    try:
        version(LIBRARY)
    except PackageNotFoundError:
        raise RuacError(f"corruption {name!r}: needs {LIBRARY}; pip install 'ruac[corruptions]'") from None


def _generator(image_id: str, name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{image_id}|{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


_SEEDING = threading.Lock()


@contextmanager
def _global_numpy_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, from which the library draws, and restore its state afterwards."""
    with _SEEDING:
        state = np.random.get_state()
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)
