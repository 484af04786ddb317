"""Is what survives an attack right? The answer under trained attackers as a further look, beside a random change."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import PartialState
from matplotlib.figure import Figure
from rich.progress import track

from ruac.backbone import load_backbone
from ruac.base.errors import RuacError
from ruac.base.files import sha256
from ruac.data.identity import dataset_hash
from ruac.data.sample import MaskDataset
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Scores, evaluate_image, objects_of
from ruac.evaluation.sweep.open import open_domains
from ruac.inference.export import fingerprint
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import LooksConfig
from ruac.studies.experiments.outputs import write_outputs
from ruac.training.attack_look import load_attack_looks
from ruac.training.engine import LAST

MEASURES = ("auroc", "aurc", "ece", "prr")


@dataclass
class AttackLookConfig:
    """run: folder of the training run whose attackers look. domains: as in a sweep. looks: that the attack is compared
    with and added to. keep_masks: score SAM 2's own masks, so that all rank the same errors. images: per data set,
    spread evenly (0: all). objects: of each at most so many."""

    run: str = "???"
    domains: list[str] = field(default_factory=list)
    backbone: str = "nano"
    looks: list[str] = field(default_factory=lambda: ["zoom"])
    keep_masks: bool = True
    out: str = "runs/attack_look"
    images: int = 8
    objects: int = 6
    cpu: bool = False
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if not self.domains:
            raise RuacError("domains: expected at least one entry")
        if self.images < 0 or self.objects < 1:
            raise RuacError(f"images {self.images}, objects {self.objects}: expected at least 0 and 1")
        if self.looks:
            LooksConfig(looks=self.looks).validate()


def looking_models(plain: UncertainSam, config: AttackLookConfig) -> dict[str, UncertainSam]:
    """Vanilla, and with the attack as a look, with its control, with `looks`, and with both."""
    attack, control = load_attack_looks(config.run, config.backbone)
    alone, more = (LooksConfig(looks=looks, keep_masks=config.keep_masks) for looks in ([], config.looks))
    models = {"vanilla": plain, "attack": plain.looking(alone, [attack]), "random": plain.looking(alone, [control])}
    if config.looks:
        name = "+".join(config.looks)
        models[name] = plain.looking(more)
        models |= {
            f"{name} and attack": plain.looking(more, [attack]),
            f"{name} and random": plain.looking(more, [control]),
        }
    return models


def measure(dataset: MaskDataset, models: dict[str, UncertainSam], config: AttackLookConfig) -> list[dict]:
    """One row per model, over all objects of the images taken: mean J, and `MEASURES` of the total in object bands."""
    scores, count = Scores(), min(config.images or len(dataset), len(dataset))
    for place in track(np.linspace(0, len(dataset) - 1, count).astype(int), description=dataset.name):
        part = objects_of(dataset[place], slice(config.objects))
        evaluate_image(models, part, config.protocol, scores, domain=dataset.name, regions=("band",))
    rows = []
    for name in models:
        own = [row for row in scores.rows if row["model"] == name]
        found = scores.sums[(name, "entropy" if name == "vanilla" else "total", "band")].compute()
        row = {"domain": dataset.name, "model": name, "images": count, "objects": len(own)}
        rows.append(row | {"j": np.mean([each["j"] for each in own])} | {key: found[key] for key in MEASURES})
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over domains, and of the difference to vanilla with the number of domains that are better."""
    wide = table.pivot(index="domain", columns="model", values=["j", *MEASURES])
    rows = []
    for name in dict.fromkeys(table.model):
        row = {"model": name}
        for key in ("j", *MEASURES):
            gain = wide[key][name] - wide[key]["vanilla"]
            better = int((gain < 0 if key in ("aurc", "ece") else gain > 0).sum())
            row |= {key: wide[key][name].mean(), f"{key}_gain": gain.mean(), f"{key}_better": better}
        rows.append(row)
    return pd.DataFrame(rows)


def run_attack_look(config: AttackLookConfig) -> Path:
    """Run the experiment and print its summary; returns the folder. Raises `RuacError` for unusable input."""
    domains = open_domains(config.domains)
    backbone = load_backbone(config.backbone).to(PartialState(cpu=config.cpu).device)
    models = looking_models(UncertainSam(backbone, None).eval(), config)
    table = pd.DataFrame([row for data in domains.values() for row in measure(data, models, config)])
    short = summary(table)
    print(short.round(4).to_string(index=False))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.barh(short.model[1:], 100 * short.auroc_gain[1:])
    axes.set_xlabel("band AUROC over vanilla, points, mean over data sets")
    facts = {
        "backbone": fingerprint(backbone),
        "run": {config.run: sha256(Path(config.run) / LAST)},
        "data": {name: dataset_hash(data) for name, data in domains.items()},
        "summary": short.to_dict("records"),
    }
    return write_outputs(config.out, "attack_look", config=config, table=table, figure=figure, facts=facts)
