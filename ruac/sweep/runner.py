"""The sweep: any number of models over any number of domains through one prompt path."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath

import torch
from accelerate import PartialState
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ruac.backbone import load_backbone
from ruac.data.open import open_dataset
from ruac.data.sample import MaskDataset
from ruac.errors import RuacError
from ruac.export import fingerprint, load_exported
from ruac.model import UncertainSam
from ruac.sweep.chunks import chunk_path, is_finished, save_chunk
from ruac.sweep.evaluate import Scores, evaluate_image
from ruac.sweep.protocol import ProtocolConfig
from ruac.sweep.results import dataset_hash, read_clicks, replay_hash, write_results
from ruac.version import VERSION

CHUNK = 8  # images between two saves


@dataclass
class ModelConfig:
    """One row of the table. backbone: name or YAML, for vanilla SAM 2. export: a folder written by
    tools/export.py, for a model with a head. Exactly one of the two, or an export with the backbone
    of a head-only export."""

    name: str = "???"
    backbone: str | None = None
    export: str | None = None

    def validate(self) -> None:
        if self.backbone is None and self.export is None:
            raise RuacError(f"model {self.name!r}: expected backbone= (vanilla) or export=")
        _check_name(self.name, "model")


@dataclass
class SweepConfig:
    """models: the first one's backbone is also swept without a head, as "vanilla", if no model is.
    domains: folders that `open_dataset` understands; a folder whose subfolders are data sets stands
    for all of them, and ``FOLDER@SPLIT`` for one split of a data set. reference: more of them that
    are no unseen domains, such as the source's validation split; swept and shown first, but left out
    of every mean and count. limit: images per domain (0: all). replay: folder of an earlier sweep
    and the model whose clicks are repeated, as ``FOLDER:MODEL``. panels: pictures of each kind per
    domain."""

    models: list[ModelConfig] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    reference: list[str] = field(default_factory=list)
    out: str = "runs/sweep"
    limit: int = 0
    replay: str | None = None
    cpu: bool = False
    panels: int = 2
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if not self.models or not self.domains:
            raise RuacError("sweep: expected at least one entry under models and under domains")
        for model in self.models:
            model.validate()
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise RuacError(f"models: names occur twice in {names}")
        if any(model.name == "vanilla" and model.export for model in self.models):
            raise RuacError("models: the name 'vanilla' is for a model without export=")
        for name in ("limit", "panels"):
            if getattr(self, name) < 0:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 0")
        if (self.replay is None) != (self.protocol.next_click == "own_error"):
            raise RuacError("replay: expected together with protocol.next_click=replay, and only then")


def run_sweep(config: SweepConfig) -> Path:
    """Evaluate, continuing whatever is finished in ``config.out``; returns that folder.

    Work is shared among the processes of ``accelerate launch`` by chunks of images; the results do
    not depend on their number. Raises `RuacError` for unusable models, domains or images; what was
    finished stays.
    """
    state = PartialState(cpu=config.cpu)
    out = Path(config.out)
    models = load_models(config, state.device)
    references, unseen = open_domains(config.reference), open_domains(config.domains)
    if twice := references.keys() & unseen.keys():
        raise RuacError(f"reference: {min(twice)!r} is also the name of a domain")
    domains = references | unseen
    key = sweep_key(config, models, domains)
    clicks = read_clicks(config.replay, config.protocol) if config.replay else None
    jobs = [
        (domain, index)
        for domain, dataset in domains.items()
        for index in range(-(-_count(dataset, config) // CHUNK))
        if not is_finished(chunk_path(out, domain, index), key)
    ]
    state.wait_for_everyone()  # every process has to see the same jobs, so none may finish one before
    share = jobs[state.process_index :: state.num_processes]
    with _progress(enabled=state.is_main_process) as bar:
        task = bar.add_task("sweep", total=len(share))
        for domain, index in share:
            bar.update(task, description=domain)
            scores, dataset = Scores(), domains[domain]
            for position in range(index * CHUNK, min((index + 1) * CHUNK, _count(dataset, config))):
                sample = dataset[position]
                replay = None if clicks is None else clicks(domain, sample.record)
                evaluate_image(models, sample, config.protocol, scores, domain=domain, replay=replay)
            save_chunk(chunk_path(out, domain, index), scores, key)
            bar.advance(task)
    state.wait_for_everyone()
    if state.is_main_process:
        counts = {domain: -(-_count(dataset, config) // CHUNK) for domain, dataset in domains.items()}
        write_results(out, config, models, domains, counts, key, references=list(references))
    state.wait_for_everyone()
    return out


def is_main_process() -> bool:
    """Whether this process is the one that reports."""
    return PartialState().is_main_process


def load_models(config: SweepConfig, device: torch.device) -> dict[str, UncertainSam]:
    """Models by name; equal backbones become one object, so that images are encoded once."""
    models: dict[str, UncertainSam] = {}
    for entry in config.models:
        if entry.export is None:
            models[entry.name] = UncertainSam(load_backbone(entry.backbone), None)
        else:
            models[entry.name] = load_exported(entry.export, backbone=entry.backbone)
    if all(model.head is not None for model in models.values()):
        models = {"vanilla": UncertainSam(next(iter(models.values())).backbone, None)} | models
    shared: dict[str, torch.nn.Module] = {}
    for model in models.values():
        print_of = f"{fingerprint(model.backbone.sam)}/{model.image_size}"
        model.backbone = shared.setdefault(print_of, model.backbone)
        model.to(device).eval()
    return models


def open_domains(entries: list[str]) -> dict[str, MaskDataset]:
    """Data sets by name, in the order given; the name is the folder's, with the split behind an @.

    Raises `RuacError` for a folder that is no data set, a name that occurs twice, or one that cannot
    be the name of a file.
    """
    found: list[tuple[Path, str | None]] = []
    for entry in entries:
        folder, _, split = entry.partition("@")
        given = Path(folder)
        if not given.is_dir():
            raise RuacError(f"{given}: domain folder not found")
        inside = sorted(p for p in given.iterdir() if p.is_dir() and (p / "annotations.json").is_file())
        single = (given / "annotations.json").is_file() or not inside
        found += [(place, split or None) for place in ([given] if single else inside)]
    domains: dict[str, MaskDataset] = {}
    for folder, split in found:
        name = f"{folder.name}@{PurePath(split).name}" if split else folder.name  # a split may be given as a path
        _check_name(name, f"{folder}: domain")
        dataset = open_dataset(folder, split=split, name=name)
        if dataset.name in domains:
            raise RuacError(f"{folder}: another domain is named {dataset.name!r} already")
        domains[dataset.name] = dataset
    return domains


def sweep_key(config: SweepConfig, models: dict[str, UncertainSam], domains: dict[str, MaskDataset]) -> str:
    """Hash of all that a number depends on: protocol, models, limit, replayed clicks, data, version."""
    content = {
        "version": VERSION,
        "protocol": asdict(config.protocol),
        "models": {
            name: [fingerprint(model), model.image_size, model.head and asdict(model.head.config)]
            for name, model in models.items()
        },
        "limit": config.limit,
        "replay": config.replay and replay_hash(config.replay),
        "domains": {name: dataset_hash(dataset) for name, dataset in domains.items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_name(name: str, what: str) -> None:
    """Names of models and domains become folders, files and, joined by '|', arrays of a chunk."""
    if not name or name[0] == "." or set(name) & set("|/"):
        raise RuacError(f"{what} {name!r}: expected a name without '|', '/' and a dot in front")


def _count(dataset: MaskDataset, config: SweepConfig) -> int:
    return min(len(dataset), config.limit) if config.limit else len(dataset)


def _progress(*, enabled: bool) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, disable=not enabled)
