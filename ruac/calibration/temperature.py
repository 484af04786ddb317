"""The temperature of vanilla SAM 2, fitted on held-out source images: an export like any other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from rich.progress import track
from torch import Tensor

from ruac.backbone import Backbone, backbone_config, load_backbone
from ruac.backbone.outputs import upsample
from ruac.base.errors import RuacError
from ruac.base.provenance import environment
from ruac.data.open import open_dataset, place_and_split
from ruac.data.sample import MaskDataset
from ruac.evaluation.metrics import object_band
from ruac.evaluation.protocol import ProtocolConfig, prompt_objects
from ruac.evaluation.score import Encodings, blocks, objects_of
from ruac.evaluation.sweep.claims import dataset_hash
from ruac.inference.export import export_model
from ruac.inference.model import UncertainSam
from ruac.inference.temperature_file import backbone_identity
from ruac.uncertainty.temperature import TemperatureConfig, TemperatureHead, fit_temperature, temperature_nll


@dataclass
class TemperatureFitConfig:
    """source: held-out source images, ``FOLDER`` or ``FOLDER@SPLIT``; never a domain of the sweep. backbone: as in a
    model of the sweep. images: how many, spread evenly over the split (0: all). pixels: drawn per image, its objects
    weighing alike. region: where from, the object's ``band`` or the whole ``image``, most of which is easy background.
    protocol: as in the sweep; pixels are those of the answer after the last click."""

    source: str = "???"
    backbone: str = "nano"
    out: str = "runs/temperature"
    images: int = 200
    pixels: int = 20_000
    region: str = "band"
    seed: int = 0
    cpu: bool = False
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if self.region not in ("band", "image"):
            raise RuacError(f"region: {self.region!r}, expected band or image")
        if self.images < 0 or self.pixels < 1:
            raise RuacError(f"images {self.images}, pixels {self.pixels}: expected at least 0 and at least 1")
        if self.protocol.next_click == "replay":
            raise RuacError("protocol.next_click: replay, expected own_error: there are no clicks to repeat")
        if Path(self.out).suffix == ".json":
            raise RuacError(f"out: {self.out}, expected a folder: a fit is an export")


def run_fit(config: TemperatureFitConfig) -> Path:
    """Fit on the source and export to the folder ``config.out``, without the backbone.

    Raises `RuacError` for unusable data or pixels.
    """
    folder, split = place_and_split(config.source)
    dataset = open_dataset(folder, split=split)
    backbone = load_backbone(config.backbone).to(PartialState(cpu=config.cpu).device)
    logits, target = draw_pixels(backbone, dataset, config)
    temperature = fit_temperature(logits, target)
    record = {
        "temperature_fit": asdict(config),
        "nll": {"before": temperature_nll(logits, target, 1.0), "after": temperature_nll(logits, target, temperature)},
        "drawn": len(logits),
        "backbone": backbone_identity(backbone),
        "source": {"name": dataset.name, "sha256": dataset_hash(dataset)},
        "environment": environment(),
    }
    model = UncertainSam(backbone, TemperatureHead(TemperatureConfig(temperature=temperature)))
    return export_model(model, backbone_config(config.backbone), config.out, with_backbone=False, record=record)


@torch.no_grad()
def draw_pixels(backbone: Backbone, dataset: MaskDataset, config: TemperatureFitConfig) -> tuple[Tensor, Tensor]:
    """Vanilla's upsampled logits ``float32 [P]`` and the truth ``bool [P]`` at random pixels of the region."""
    count = min(config.images or len(dataset), len(dataset))
    model, drawn = UncertainSam(backbone, None), []
    for position in track(np.linspace(0, len(dataset) - 1, count).astype(int), description="source images"):
        sample = dataset[position]
        features = Encodings(sample.image)(backbone)
        rng = np.random.default_rng([config.seed, position])
        for block in blocks(len(sample.masks), backbone, pixels=sample.masks[0].size):
            part = objects_of(sample, block)
            keys = [f"{part.record.id}/{k}" for k in part.record.object_ids]
            *_, final = prompt_objects(
                model.decode, features, part.masks, config.protocol, side=backbone.image_size, keys=keys
            )
            logits = upsample(final.logits, part.masks.shape[1:])[:, 0].cpu().numpy()  # [N, H, W]
            regions = object_band(part.masks) if config.region == "band" else np.ones_like(part.masks)
            share = -(-config.pixels // len(sample.masks))
            for logit, truth, region in zip(logits, part.masks, regions, strict=True):
                inside = np.flatnonzero(region)
                place = rng.choice(inside, min(share, len(inside)), replace=False)
                drawn.append((logit.reshape(-1)[place], truth.reshape(-1)[place]))
    logits, target = (torch.from_numpy(np.concatenate(column)) for column in zip(*drawn, strict=True))
    return logits, target
