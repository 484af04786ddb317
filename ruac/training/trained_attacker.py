"""The attackers of a training run, which no export holds."""

from __future__ import annotations

from pathlib import Path

import torch

from ruac.backbone import load_backbone
from ruac.base.config import load_record
from ruac.base.errors import RuacError
from ruac.training.adversarial import AdversarialTask, TrainConfig
from ruac.training.attack import Attacker
from ruac.training.engine import LAST, load_checkpoint

TRAINED = ("learned", "patch")
"""Kinds of training runs whose attackers act on a single image and have something learned."""


def run_config(run: str | Path) -> TrainConfig:
    """The config of a training run with a checkpoint. Raises `RuacError` if there is none."""
    run = Path(run)
    if not (run / LAST).is_file():
        raise RuacError(f"{run / LAST}: not found; expected the out= folder of ruac train")
    return load_record(TrainConfig, run / "config.yaml")


def load_attacker(run: str | Path, backbone: str) -> Attacker:
    """The attacker of a training run's last checkpoint.

    Raises `RuacError` if there is none, if it has nothing learned, or if it was trained on another backbone.
    """
    run, config = Path(run), run_config(run)
    if config.attack.kind not in TRAINED:
        raise RuacError(f"{run}: attack.kind {config.attack.kind!r}, expected {' or '.join(TRAINED)}")
    if config.backbone != backbone:
        raise RuacError(f"{run}: trained on backbone {config.backbone!r}, expected {backbone!r}")
    with torch.random.fork_rng(devices=[]):
        task = AdversarialTask(load_backbone(config.backbone), config, None)
    load_checkpoint(run / LAST, task)
    return task.attacker
