"""Attack as a look: trained attackers perturb a picture given the predicted masks, and the answer is asked for again.

Beside them a control, a random perturbation of the same norm. Only what leaves everything in its place can be a look:
style and degradations, not a deformation, whose answer would lie elsewhere.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from ruac.backbone import Features
from ruac.base.errors import RuacError
from ruac.training.attack import AttackConfig, Attacker, build_attacker
from ruac.training.trained_attacker import load_attacker, run_config


class AttackLook:
    """A `ruac.inference.perturbed_look.Perturbation` by attackers as in training, with dropout off.

    What is random about them (the noise) is seeded by the picture, so that a picture is always answered alike.
    """

    def __init__(self, attacker: Attacker):
        self.attacker = Attacker(style=attacker.style, degradations=attacker.degradations).eval()

    @torch.no_grad()
    def __call__(self, image: Tensor, features: Features, masks: Tensor) -> Tensor:
        valid = masks.flatten(2).any(dim=2)  # [1, N]
        with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
            torch.manual_seed(_seed(image))
            return self.attacker.to(image.device)(image, features.embedding, masks, valid).images


class RandomLook:
    """The control: style and degradations drawn at random within the attackers' budget, scaled to their change's norm.

    The norm is that of the whole picture's change, in normalised units; it is the attack's own on the same picture.
    """

    def __init__(self, attack: AttackLook, config: AttackConfig):
        self.attack = attack
        self.drawn = AttackLook(build_attacker(config))

    @torch.no_grad()
    def __call__(self, image: Tensor, features: Features, masks: Tensor) -> Tensor:
        norm = (self.attack(image, features, masks) - image).norm()
        change = self.drawn(image, features, masks) - image
        return image + change * (norm / change.norm().clamp_min(torch.finfo(change.dtype).tiny))


def load_attack_looks(run: str | Path, backbone: str) -> tuple[AttackLook, RandomLook]:
    """The look of the attackers of the training run in folder `run`, and its control.

    Raises `RuacError` where the run has none that leave everything in its place, or is of another backbone.
    """
    config = run_config(run).attack
    attacker = load_attacker(run, backbone)
    if attacker.style is None and attacker.degradations is None:
        raise RuacError(f"{run}: its attackers only move things; expected attack.use_style or attack.use_degradations")
    drawn = AttackConfig(
        kind="random" if config.use_degradations else "random_style",
        use_degradations=config.use_degradations,
        style=config.style,
        degradations=config.degradations,
    )
    look = AttackLook(attacker)
    control = RandomLook(look, drawn)
    if not config.use_style:
        control.drawn.attacker.style = None
    return look, control


def _seed(image: Tensor) -> int:
    digest = hashlib.sha256(image.detach().float().cpu().numpy().tobytes()).digest()
    return int.from_bytes(digest[:7], "big")
