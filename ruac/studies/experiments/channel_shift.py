"""Do perturbations of the source move the features as real domains do? Channel means, their shifts and their angles.

Definitions and how to read the numbers: docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import PartialState
from matplotlib.figure import Figure
from rich.progress import track
from torch import Tensor

from ruac.backbone import Backbone, load_backbone
from ruac.base.errors import RuacError
from ruac.base.files import sha256
from ruac.data.identity import dataset_hash
from ruac.data.open import open_dataset
from ruac.data.sample import MaskDataset, Sample
from ruac.data.synthetic.shifts import SHIFTS
from ruac.evaluation.protocol import ProtocolConfig, prompt_objects
from ruac.evaluation.sweep.open import open_domains
from ruac.inference.export import fingerprint
from ruac.inference.model import UncertainSam
from ruac.studies.experiments.bootstrap import interval, resampling_weights, weighted_mean
from ruac.studies.experiments.outputs import write_outputs
from ruac.studies.experiments.perturbations import (
    ATTACKS,
    Perturbation,
    Scene,
    attack_of,
    by_attack,
    by_shift,
    to_scene,
)
from ruac.training.attack import AttackConfig, build_attacker
from ruac.training.engine import LAST
from ruac.training.trained_attacker import load_attacker

MEASURES = ("cosine", "pearson", "ratio", "norm", "domain_norm", "noise")
"""Of a perturbation's shift against a domain's. ratio: of their norms. noise: the norm that the domain's shift would
have by chance alone, the root mean square of its replicates' distance from it."""


@dataclass
class ChannelShiftConfig:
    """source: data set of the clean images, with its split; none that the backbone or the attackers were trained on.
    domains: as in a sweep. attacks: of `ATTACKS`, at their default budgets. configs: training configs whose attack has
    nothing to learn, at its budget. shifts: procedural ones, keys of ``synthetic.shifts.SHIFTS``. runs: folders of
    training runs whose attackers are taken. objects: per image, the attackers' number in training. limit: images per
    data set (0: all). protocol: the prompt of the decoder's features, drawn on the perturbed masks; a box for a
    backbone that answers boxes alone. Pictures fill the model's square, as in training, also of one that would pad
    them."""

    source: str = "???"
    source_split: str | None = "val"
    domains: list[str] = field(default_factory=list)
    backbone: str = "nano"
    attacks: list[str] = field(default_factory=lambda: list(ATTACKS))
    shifts: list[str] = field(default_factory=lambda: list(SHIFTS))
    configs: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    out: str = "runs/channel_shift"
    objects: int = 3
    limit: int = 0
    replicates: int = 1000
    seed: int = 0
    cpu: bool = False
    protocol: ProtocolConfig = field(default_factory=lambda: ProtocolConfig(clicks=1))

    def validate(self) -> None:
        if not self.domains:
            raise RuacError("domains: expected at least one entry")
        for name, allowed in (("attacks", ATTACKS), ("shifts", tuple(SHIFTS))):
            if unknown := set(getattr(self, name)) - set(allowed):
                raise RuacError(f"{name}: {min(unknown)!r}, expected {', '.join(allowed)}")
        if self.objects < 1:
            raise RuacError(f"objects: {self.objects}, expected at least 1")
        for name in ("limit", "replicates"):
            if getattr(self, name) < 0:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 0")
        if self.protocol.next_click == "replay":
            raise RuacError("protocol.next_click: replay, expected own_error: perturbed objects have no stored clicks")


@dataclass
class Means:
    """Channel means over objects' pixels. levels: ``[N, C]`` of every level. image: ``int [N]``, from 0 on."""

    levels: dict[str, np.ndarray]
    image: np.ndarray


def perturbations(config: ChannelShiftConfig, backbone: Backbone) -> dict[str, Perturbation]:
    """All that the config names: attacks by kind, configs as ``config.FILE``, shifts as ``shift.NAME``, runs as
    ``run.FOLDER``."""
    device = next(backbone.parameters()).device
    found: dict[str, Perturbation] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # the texture of an untrained patch
        for kind in config.attacks:
            found[kind] = by_attack(build_attacker(AttackConfig(kind=kind), feature_dim=backbone.token_dim).to(device))
        for path in config.configs:
            attack = attack_of(path)
            built = build_attacker(attack, feature_dim=backbone.token_dim)
            found[f"config.{Path(path).stem}"] = by_attack(built.to(device))
    for run in config.runs:
        name = f"run.{Path(run).name}"
        if name in found:
            raise RuacError(f"runs: two folders are named {Path(run).name!r}")
        found[name] = by_attack(load_attacker(run, config.backbone).to(device))
    return found | {f"shift.{name}": by_shift(name) for name in config.shifts}


@torch.no_grad()
def channel_means(backbone: Backbone, scene: Scene, protocol: ProtocolConfig, keys: list[str]) -> dict[str, np.ndarray]:
    """Per level, mean of every channel over the pixels of each object: ``[K, C]``, nan where it has no pixel.

    Levels: ``decoder``, the pixel tokens of the last round of prompts, and ``fpn_STRIDE``, the image features: of SAM 2
    at strides 4, 8 and 16, of another model what its decoder gets. A cell counts by the share of it that the object
    covers.
    """
    features = backbone.encode(scene.image)
    held = scene.masks.flatten(1).any(dim=1).cpu()
    maps = [*features.high_res, features.embedding]
    levels = {f"fpn_{scene.image.shape[-1] // level.shape[-1]}": level for level in maps}
    found = {name: _object_means(level, scene.masks) for name, level in levels.items()}
    found["decoder"] = np.full((len(held), backbone.channels), np.nan)
    if held.any():
        truth = scene.masks.cpu().numpy()[held.numpy()]
        decode = UncertainSam(backbone, None).decode
        own = [key for key, kept in zip(keys, held, strict=True) if kept]
        asked = replace(protocol, box=protocol.box or backbone.boxes_only)
        *_, final = prompt_objects(decode, features, truth, asked, frame=(backbone.image_size,) * 2, keys=own)
        tokens = final.prediction.decoded.pixel_tokens
        found["decoder"][held.numpy()] = _object_means(tokens, scene.masks[held.to(scene.masks.device)])
    return found


def _object_means(features: Tensor, masks: Tensor) -> np.ndarray:
    """``[1 or K, C, h, w], bool [K, S, S] -> [K, C]``."""
    weight = F.adaptive_avg_pool2d(masks[:, None].float(), features.shape[-2:])  # [K, 1, h, w]
    mean = (features.float() * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))
    return mean.cpu().numpy().astype(np.float64)


def measure_images(
    backbone: Backbone, dataset: MaskDataset, config: ChannelShiftConfig, changes: dict[str, Perturbation]
) -> dict[str, Means]:
    """Channel means of one data set, "clean" and under every perturbation: the same objects in the same order."""
    rows: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in ("clean", *changes)}
    image = []
    for position, (sample, scene) in enumerate(_scenes(backbone, dataset, config)):
        keys = [f"{sample.record.id}/{key}" for key in sample.record.object_ids]
        rows["clean"].append(channel_means(backbone, scene, config.protocol, keys))
        with torch.no_grad():
            embedding = backbone.encode(scene.image).embedding if changes else None
            for number, (name, change) in enumerate(changes.items()):
                perturbed = change(sample, scene, embedding, np.random.default_rng([config.seed, position, number]))
                rows[name].append(channel_means(backbone, perturbed, config.protocol, keys))
        image += [position] * len(keys)
    return {
        name: Means({level: np.concatenate([part[level] for part in parts]) for level in parts[0]}, np.array(image))
        for name, parts in rows.items()
    }


def _scenes(backbone: Backbone, dataset: MaskDataset, config: ChannelShiftConfig) -> Iterator[tuple[Sample, Scene]]:
    """Samples with some of their objects, chosen by the seed, and their scenes."""
    like = next(backbone.parameters()).new_empty(1, 3, backbone.image_size, backbone.image_size)
    count = min(len(dataset), config.limit or len(dataset))
    for position in track(range(count), description=dataset.name):
        sample = dataset[position]
        order = np.random.default_rng([config.seed, position]).permutation(len(sample.masks))
        which = np.sort(order[: config.objects])
        record = replace(sample.record, object_ids=tuple(sample.record.object_ids[index] for index in which))
        sample = Sample(record, sample.image, sample.masks[which])
        yield sample, to_scene(sample.image, sample.masks, like)


def compare(source: dict[str, Means], domains: dict[str, Means], *, replicates: int, seed: int) -> pd.DataFrame:
    """One row per level, unit, perturbation and domain; 95 % intervals over images of the source and of the domain.

    source: of `measure_images`. unit: "std", shifts divided channel by channel by the clean source's standard
    deviation over objects, or "raw". The perturbation "other_domains" is the mean shift of the other domains, and the
    domain "mean" the mean over the domains of the row's numbers.
    """
    rows = []
    for level, clean in source["clean"].levels.items():
        scale = np.nanstd(clean, axis=0)
        weights = resampling_weights(source["clean"].image.max() + 1, replicates, seed)
        origin = _mean(clean, source["clean"].image, weights)  # [R, C]
        made = {
            name: _mean(means.levels[level] - clean, means.image, weights)
            for name, means in source.items()
            if name != "clean"
        }
        real = {}
        for number, (name, means) in enumerate(domains.items()):
            drawn = resampling_weights(means.image.max() + 1, replicates, seed + 1 + number)
            real[name] = _mean(means.levels[level], means.image, drawn) - origin
        for unit, divisor in (("std", np.where(scale > 0, scale, 1.0)), ("raw", 1.0)):
            for name in (*made, *(["other_domains"] if len(real) > 1 else [])):
                measured = {}
                for domain, shift in real.items():
                    others = [other for key, other in real.items() if key != domain]
                    ours = made[name] if name in made else np.mean(others, axis=0)
                    measured[domain] = _alignment(ours / divisor, shift / divisor)
                measured["mean"] = {
                    key: np.mean([values[key] for values in measured.values()], axis=0) for key in MEASURES
                }
                for domain, values in measured.items():
                    row = {"level": level, "unit": unit, "perturbation": name, "domain": domain}
                    for key in MEASURES:
                        low, high = interval(values[key])
                        row |= {key: values[key][0], f"{key}_low": float(low), f"{key}_high": float(high)}
                    rows.append(row)
    return pd.DataFrame(rows)


def _mean(values: np.ndarray, image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the objects that have a value, ``[N, C] -> [R, C]``, images weighted by ``[R, images]``."""
    kept = np.isfinite(values).all(axis=1)
    sums = np.zeros((weights.shape[1], values.shape[1]))
    np.add.at(sums, image[kept], values[kept])
    return weighted_mean(weights, sums, np.bincount(image[kept], minlength=weights.shape[1]))


def _alignment(ours: np.ndarray, theirs: np.ndarray) -> dict[str, np.ndarray]:
    """`MEASURES` of two shifts ``[R, C]``: ``[R]`` each; nan where a shift is zero."""
    size, target = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
    centred, other = ours - ours.mean(axis=1, keepdims=True), theirs - theirs.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (ours * theirs).sum(axis=1) / (size * target)
        pearson = (centred * other).sum(axis=1) / (np.linalg.norm(centred, axis=1) * np.linalg.norm(other, axis=1))
        ratio = size / target
    noise = np.full_like(size, np.sqrt(np.square(theirs - theirs[0]).sum(axis=1).mean()))
    return {"cosine": cosine, "pearson": pearson, "ratio": ratio, "norm": size, "domain_norm": target, "noise": noise}


def summary(table: pd.DataFrame) -> str:
    """Decoder features, means over domains, one line per perturbation."""
    rows = table[(table.level == "decoder") & (table.unit == "std") & (table.domain == "mean")]
    shown = rows[["perturbation"]].copy()
    for key in ("cosine", "pearson", "ratio"):
        shown[key] = [
            f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
            for value, low, high in zip(rows[key], rows[f"{key}_low"], rows[f"{key}_high"], strict=True)
        ]
    return shown.to_string(index=False)


def draw_figure(table: pd.DataFrame) -> Figure:
    """Decoder features: cosine and norm ratio of every perturbation and domain."""
    rows = table[(table.level == "decoder") & (table.unit == "std")]
    names, domains = list(dict.fromkeys(rows.perturbation)), list(dict.fromkeys(rows.domain))
    figure = Figure(figsize=(3 + 0.9 * len(domains), 1.5 + 0.28 * len(names)), layout="constrained")
    panels = (("cosine", rows.cosine, 1), ("log2 of the norm ratio", np.log2(rows.ratio), 6))
    for axes, (title, values, limit) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        grid = rows.assign(value=values).pivot(index="perturbation", columns="domain", values="value")
        picture = axes.imshow(grid.loc[names, domains], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        axes.set_xticks(range(len(domains)), domains, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_title(title, fontsize=9)
        figure.colorbar(picture, ax=axes)
    return figure


def run_channel_shift(config: ChannelShiftConfig) -> Path:
    """Run the experiment and print its summary; returns the folder. Raises `RuacError` for unusable input."""
    dataset = open_dataset(config.source, split=config.source_split)
    domains = open_domains(config.domains)
    backbone = load_backbone(config.backbone).to(PartialState(cpu=config.cpu).device)
    source = measure_images(backbone, dataset, config, perturbations(config, backbone))
    means = {name: measure_images(backbone, data, config, {})["clean"] for name, data in domains.items()}
    table = compare(source, means, replicates=config.replicates, seed=config.seed)
    print(summary(table))
    facts = {
        "backbone": fingerprint(backbone),
        "runs": {run: sha256(Path(run) / LAST) for run in config.runs},
        "data": {name: dataset_hash(data) for name, data in {"source": dataset, **domains}.items()},
        "objects": {name: len(of.image) for name, of in {"source": source["clean"], **means}.items()},
    }
    figure = draw_figure(table)
    return write_outputs(config.out, "channel_shift", config=config, table=table, figure=figure, facts=facts)
