"""Ways to change an image and its masks together: attacks, trained or not, and procedural shifts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.data.augment import prepare
from ruac.data.sample import Sample
from ruac.data.synthetic.shifts import SHIFTS
from ruac.training.adversarial import TrainConfig
from ruac.training.attack import AttackConfig, Attacker

ATTACKS = ("noise", "patch", "random_style", "random_deformation", "random", "stress")
"""Attacks that need no training. The texture of an untrained patch is random."""


class Scene(NamedTuple):
    """An image as the model sees it: ``float32 [1, 3, S, S]`` normalised, and masks ``bool [K, S, S]``."""

    image: Tensor
    masks: Tensor


def to_scene(image: np.ndarray, masks: np.ndarray, like: Tensor) -> Scene:
    """``uint8 [H, W, 3]`` and ``bool [K, H, W]`` at the side and on the device of `like`."""
    side = like.shape[-1]
    resized = F.interpolate(torch.from_numpy(masks)[None].float(), (side, side), mode="area")[0] >= 0.5
    return Scene(prepare(image, side).to(like.device), resized.to(like.device))


Perturbation = Callable[[Sample, Scene, Tensor, np.random.Generator], Scene]
"""From the sample, its scene and its clean features ``[1, D, S/16, S/16]`` to the perturbed scene, the same K masks."""


def by_attack(attacker: Attacker) -> Perturbation:
    """An attack as in training, with dropout off."""
    attacker.eval()

    def perturb(sample: Sample, scene: Scene, embedding: Tensor, rng: np.random.Generator) -> Scene:
        masks, valid = scene.masks[None].float(), scene.masks.flatten(1).any(dim=1)[None]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            attacked = attacker(scene.image, embedding, masks, valid)
        return Scene(attacked.images, attacked.masks[0] > 0.5)

    return perturb


def by_shift(name: str) -> Perturbation:
    """A procedural shift, applied to the picture before it is resized."""

    def perturb(sample: Sample, scene: Scene, embedding: Tensor, rng: np.random.Generator) -> Scene:
        image, masks = SHIFTS[name](sample.image, sample.masks, rng)
        return to_scene(image, masks, scene.image)

    return perturb


def attack_of(path: str) -> AttackConfig:
    """The attack of a training config. Raises `RuacError` for one that would have to be trained, or climbs a loss."""
    config = load_config(TrainConfig, path, ["source=none"]).attack
    if config.kind not in ATTACKS:
        raise RuacError(f"configs: {path}: attack.kind {config.kind!r}, expected one of {', '.join(ATTACKS)}")
    return config
