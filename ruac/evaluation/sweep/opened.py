"""A sweep opened: models loaded, domains indexed, and the key of all that its numbers depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from ruac.base.errors import RuacError
from ruac.base.provenance import settings_of
from ruac.base.version import VERSION
from ruac.data.identity import image_names
from ruac.data.sample import MaskDataset
from ruac.evaluation.sweep.config import SweepConfig
from ruac.evaluation.sweep.methods import is_vanilla, load_model, mark
from ruac.evaluation.sweep.open import corrupted, open_domains
from ruac.evaluation.sweep.replay import Clicks, read_clicks, replay_hash
from ruac.inference.export import fingerprint
from ruac.inference.model import UncertainSam


@dataclass(frozen=True)
class Sweep:
    """What a config names, opened. domains: references first, then the unseen ones, then corrupted ones. references:
    names of those that count nowhere. key: of all chunks, see `sweep_key`. clicks: to be repeated, if any. names: of
    the images of each domain, see `image_names`; in the main process only."""

    config: SweepConfig
    models: dict[str, UncertainSam]
    domains: dict[str, MaskDataset]
    references: list[str]
    key: str
    clicks: Clicks | None
    names: dict[str, list[str]]

    @property
    def out(self) -> Path:
        return Path(self.config.out)


def open_sweep(config: SweepConfig) -> Sweep:
    """Load the models and open the domains of `config`. Raises `RuacError` for whatever is unusable."""
    state = PartialState(cpu=config.cpu, timeout=timedelta(days=1))  # one process indexes and merges for all
    models = load_models(config, state.device)
    native = {"splits": config.native_splits, "seed": config.native_seed}
    options = native | {"orientation": config.orientation}
    references, unseen = open_domains(config.reference, **options), open_domains(config.domains, **options)
    variants = corrupted(unseen, config.corruptions)
    if twice := references.keys() & (unseen.keys() | variants.keys()):
        raise RuacError(f"reference: {min(twice)!r} is also the name of a domain")
    domains = references | unseen | variants
    main = state.is_main_process
    return Sweep(
        config=config,
        models=models,
        domains=domains,
        references=[*references, *variants],
        key=sweep_key(config, models),
        clicks=read_clicks(config.replay, config.protocol) if config.replay else None,
        names={name: image_names(dataset, config.limit) for name, dataset in domains.items()} if main else {},
    )


def load_models(config: SweepConfig, device: torch.device) -> dict[str, UncertainSam]:
    """Models by name and `mark`; equal backbones become one object, so that images are encoded once."""
    loaded = [(entry.name, load_model(entry)) for entry in config.models]
    models = {name + mark(model): model for name, model in loaded}
    if not any(is_vanilla(model) for model in models.values()):
        models = {"vanilla": UncertainSam(next(iter(models.values())).backbone, None)} | models
    shared_by: dict[str, torch.nn.Module] = {}
    for model in models.values():
        print_of = f"{fingerprint(model.backbone.sam)}/{model.image_size}"
        model.backbone = shared_by.setdefault(print_of, model.backbone)
        model.to(device).eval()
    return models


def sweep_key(config: SweepConfig, models: dict[str, UncertainSam]) -> str:
    """Hash of all that an image's numbers depend on beside the image: protocol, models, replayed clicks, version."""
    content = {
        "version": VERSION,
        "protocol": asdict(config.protocol),
        "models": {
            name: [
                fingerprint(model),
                model.image_size,
                model.head and settings_of(model.head.config),
                *_calibration(model),
            ]
            + ([settings_of(model.looks)] if model.looks else [])
            + ([settings_of(model.reader.config)] if model.reader else [])
            + ([asdict(model.thresholds)] if model.thresholds else [])
            + ([asdict(model.reliability)] if model.reliability else [])
            for name, model in models.items()
        },
        "replay": config.replay and replay_hash(config.replay),
    }
    if config.orientation != "seen":
        content["orientation"] = config.orientation
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _calibration(model: UncertainSam) -> list:
    """Kind and settings of the calibrator, whose tensors the fingerprint has; nothing without one."""
    return [] if model.calibrator is None else [model.calibrator.kind, asdict(model.calibrator.config)]
