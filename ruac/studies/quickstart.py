"""The main job from end to end: train, export, sweep, predict, report."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ruac.backbone.load import ROOT
from ruac.backbone.prompts import central_pixel
from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.data.open import open_dataset
from ruac.data.synthetic.scene_sets import SceneSets, write_scene_sets
from ruac.evaluation.report import build_report
from ruac.evaluation.report.overlay import save_overlay
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.results import unreadable
from ruac.evaluation.sweep.runner import run_sweep
from ruac.inference.predictor import Predictor
from ruac.training.adversarial import TrainConfig, train_head
from ruac.training.export_run import export_run


@dataclass
class QuickstartConfig:
    """source and domains: folders of your own (default: procedural scenes, written to ``out/scenes``).
    A source with a val.txt or with splits beside it is validated on it; config: of the training."""

    out: str = "runs/quickstart"
    source: str | None = None
    domains: list[str] = field(default_factory=list)
    backbone: str = "nano"
    config: str = str(ROOT / "configs" / "train" / "quickstart.yaml")
    train_scenes: int = 200
    domain_scenes: int = 8
    seed: int = 0

    def validate(self) -> None:
        if self.domains and self.source is None:
            raise RuacError("domains: expected together with source=, the folder to train on")


def run_quickstart(config: QuickstartConfig) -> Path:
    """Do the main job in this one process; returns the path of the report.

    Raises `RuacError` if `out` holds an earlier one, or under a launcher of several processes.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:  # training ends the process group that the sweep would need
        raise RuacError("quickstart runs in one process; use ruac train and ruac sweep under accelerate launch")
    out, start = Path(config.out), time.monotonic()
    if (out / "train").exists():
        raise RuacError(f"{out}: holds an earlier quickstart; delete it or pass another out=")

    def say(step: int, text: str) -> None:
        print(f"[{time.monotonic() - start:4.0f} s] {step}/5 {text}", flush=True)

    source, domains, split = config.source, config.domains, None
    if source is None:
        say(1, "drawing procedural scenes: a source domain and shifted, unseen ones")
        scenes = SceneSets(
            out=str(out / "scenes"), seed=config.seed, train=config.train_scenes, val=8, domain=config.domain_scenes
        )
        write_scene_sets(scenes)
        source, domains, split = str(out / "scenes" / "source"), [str(out / "scenes" / "domains")], "train"
    else:
        say(1, f"training on {source}")
        domains = domains or [source]

    say(2, "training the uncertainty head against the attackers")
    overrides = [f"source={source}", f"out={out / 'train'}", f"backbone={config.backbone}"]
    if split:
        overrides += ["train_split=train", "validation_split=val"]
    overrides.append(f"engine.seed={config.seed}")
    train_head(load_config(TrainConfig, config.config, overrides), resume=False)

    say(3, "exporting the checkpoint")
    export = export_run(out / "train", out / "export", with_backbone=True)

    say(4, "sweeping over the domains beside vanilla SAM 2")
    sweep = SweepConfig([ModelConfig("ruac", export=str(export))], domains, out=str(out / "sweep"))
    sweep.validate()
    results = run_sweep(sweep)
    print("".join(f"{line}\n" for line in unreadable(results)), end="")

    say(5, "predicting on one image and writing the report")
    sample = open_dataset(domains[0] if config.source else out / "scenes" / "domains" / "fog")[0]
    point = np.array([central_pixel(sample.masks[0])], dtype=float)
    predictor = Predictor(export)
    predictor.set_image(sample.image)
    answer = predictor.predict(point_coords=point, point_labels=np.array([1]))
    overlay = out / "prediction.png"
    save_overlay(overlay, sample.image, answer.masks[0], answer.uncertainty[0], points=point, labels=np.array([1]))
    report = build_report(results)
    print(f"checkpoint: {export}\nprediction: {overlay}\nreport:     {report}")
    return report
