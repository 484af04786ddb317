"""The sweep: any number of models over any number of domains through one prompt path."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ruac.base.errors import RuacError
from ruac.base.version import VERSION
from ruac.conformal.quantile import check_alpha
from ruac.data.domains import PROTOCOLS
from ruac.data.sample import MaskDataset, Record, check_orientation
from ruac.data.synthetic.corruptions import parse_corruption
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import evaluate_image
from ruac.evaluation.sweep.chunks import ChunkWriter, drop_edited
from ruac.evaluation.sweep.claims import Claims, Job, finishing_on_signal, image_names, jobs_left, shared
from ruac.evaluation.sweep.methods import is_vanilla, load_model, mark
from ruac.evaluation.sweep.open import check_name, corrupted, open_domains
from ruac.evaluation.sweep.panels import write_panels
from ruac.evaluation.sweep.replay import Clicks, read_clicks, replay_hash
from ruac.evaluation.sweep.results import finish_results, merge_results
from ruac.inference.ensemble import EnsembleConfig
from ruac.inference.export import fingerprint
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import LooksConfig


@dataclass
class ModelConfig:
    """One row of the table. backbone: name or YAML, for vanilla SAM 2. export: a folder written by
    ruac export, for a model with a head. Exactly one of the two, or an export with the backbone
    of a head-only export.

    References without training, of vanilla SAM 2 only: temperature, the JSON file of an older fit,
    or ensemble, further passes with the same masks. unccorr: drop uncertain components of the final
    masks, of any model but an ensemble.

    looks: further looks at every object, such as zoom or flip, of any model but an ensemble, see `LooksConfig`.
    keep_masks: they change probability and uncertainty only, and leave the masks as they are.

    conformal: file of ruac conformal (or a folder with one) fitted on this model; coverage and size of inner and outer
    masks at `alpha` become columns."""

    name: str = "???"
    backbone: str | None = None
    export: str | None = None
    temperature: str | None = None
    ensemble: EnsembleConfig | None = None
    unccorr: bool = False
    looks: list[str] = field(default_factory=list)
    keep_masks: bool = False
    conformal: str | None = None
    alpha: float = 0.1

    def looks_over(self, own: LooksConfig | None) -> LooksConfig | None:
        """The looks of this row: those named here, else the model's own, with masks kept if either says so."""
        if self.looks:
            return LooksConfig(looks=self.looks, keep_masks=self.keep_masks)
        return own and replace(own, keep_masks=own.keep_masks or self.keep_masks)

    def validate(self) -> None:
        if self.backbone is None and self.export is None:
            raise RuacError(f"model {self.name!r}: expected backbone= (vanilla) or export=")
        if sum(given is not None for given in (self.export, self.temperature, self.ensemble)) > 1:
            raise RuacError(f"model {self.name!r}: expected at most one of export=, temperature= and ensemble=")
        if self.unccorr and self.ensemble is not None:
            raise RuacError(f"model {self.name!r}: expected no unccorr= with ensemble=")
        if self.looks and self.ensemble is not None:
            raise RuacError(f"model {self.name!r}: expected no looks= with ensemble=")
        if self.looks:
            self.looks_over(None).validate()
        elif self.keep_masks and self.export is None:
            raise RuacError(f"model {self.name!r}: expected keep_masks= with looks= or an export that has looks")
        if self.name == "vanilla" and (self.temperature or self.ensemble or self.unccorr or self.looks):
            raise RuacError("models: the name 'vanilla' is for SAM 2 as it is")
        check_name(self.name, "model")
        check_alpha(self.alpha)


@dataclass
class SweepConfig:
    """models: the first one's backbone is also swept without a head, as "vanilla", if no model is.
    domains: folders or native downloads, see `open_domains`. reference: more of them that are no unseen domains,
    such as the source's validation split; swept and shown first, but left out of every mean and count.
    corruptions: such as "fog:3"; each domain is also swept under each of them, and these count as references,
    since the same objects again are no further domains. native_splits, native_seed: of native downloads, whose
    splits ("ruac" or "sam1"), and the seed of the sample of a large one. orientation: what annotations
    were made on where their sizes do not tell, the picture as "seen" or its "stored" pixels. limit: images per
    domain (0: all). replay: folder of an earlier sweep and the model whose clicks are repeated, as ``FOLDER:MODEL``.
    panels: pictures of each kind per domain."""

    models: list[ModelConfig] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    reference: list[str] = field(default_factory=list)
    corruptions: list[str] = field(default_factory=list)
    native_splits: str = "ruac"
    native_seed: int = 0
    orientation: str = "seen"
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
        for text in self.corruptions:
            parse_corruption(text)
        if self.native_splits not in PROTOCOLS:
            raise RuacError(f"native_splits: {self.native_splits!r}, expected one of: {', '.join(PROTOCOLS)}")
        check_orientation(self.orientation)
        for name in ("limit", "panels"):
            if getattr(self, name) < 0:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 0")
        if (self.replay is None) != (self.protocol.next_click == "own_error"):
            raise RuacError("replay: expected together with protocol.next_click=replay, and only then")


@dataclass(frozen=True)
class Sweep:
    """What a config names, opened. domains: references first, then the unseen ones, then corrupted ones. references:
    names of those that count nowhere. key: of all chunks, see `sweep_key`. clicks: to be repeated, if any."""

    config: SweepConfig
    models: dict[str, UncertainSam]
    domains: dict[str, MaskDataset]
    references: list[str]
    key: str
    clicks: Clicks | None


def run_sweep(config: SweepConfig) -> Path:
    """Evaluate, continuing whatever is finished in ``config.out``; returns that folder.

    The processes of ``accelerate launch`` share the work image by image, over a folder that all of them see; the
    results do not depend on their number. An image that cannot be read is left out, named in the manifest under
    "failed", and tried again by the next sweep into the same folder. Ctrl-C and SIGTERM finish the image at hand.
    Raises `RuacError` for unusable models or domains, and if no image at all could be read.
    """
    sweep = open_sweep(config)
    state, out = PartialState(), Path(config.out)
    names = {d: image_names(data, config.limit) for d, data in sweep.domains.items()} if state.is_main_process else {}
    if state.is_main_process:
        for domain in sweep.domains:
            drop_edited(out, domain, sweep.key, names[domain])
    jobs = shared(lambda: jobs_left(out, sweep.domains, names, sweep.key))
    claims = Claims(len(jobs))
    failed = gather_object(_evaluate(sweep, jobs, claims))  # and so all processes have saved
    merged = shared(lambda: merge_results(sweep, names, failed))
    pictures = Claims(len(merged.panels))
    for number in pictures:
        write_panels(sweep, merged.panels[number])
    state.wait_for_everyone()
    if state.is_main_process:
        finish_results(sweep, names, merged, failed)
    state.wait_for_everyone()
    return out


def is_main_process() -> bool:
    """Whether this process is the one that reports."""
    return PartialState().is_main_process


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
    return Sweep(
        config=config,
        models=models,
        domains=references | unseen | variants,
        references=[*references, *variants],
        key=sweep_key(config, models),
        clicks=read_clicks(config.replay, config.protocol) if config.replay else None,
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
            name: [fingerprint(model), model.image_size, model.head and asdict(model.head.config), *_calibration(model)]
            + ([asdict(model.looks)] if model.looks else [])
            + ([asdict(model.thresholds)] if model.thresholds else [])
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


def _evaluate(sweep: Sweep, jobs: list[Job], claims: Claims) -> list[dict[str, str]]:
    """Do the images that this process claims; returns those that could not be read."""
    failed = []
    writer = ChunkWriter(Path(sweep.config.out), sweep.key)
    with finishing_on_signal() as stopped, _progress(enabled=is_main_process()) as bar:
        task = bar.add_task("sweep", total=len(jobs))
        for number in claims:
            if stopped():
                break
            domain, position, image = jobs[number]
            bar.update(task, description=domain, completed=number)  # claimed by any process
            dataset = sweep.domains[domain]
            record = dataset.records[position]
            try:
                _check_encodable(record)
                sample = dataset[position]
            except RuacError as error:
                entry = {"domain": domain, "image": record.id, "path": str(record.path), "error": str(error)}
                failed.append({key: _printable(text) for key, text in entry.items()})
                continue
            writer.open(domain, image)
            replay = None if sweep.clicks is None else sweep.clicks(domain, sample.record)
            evaluate_image(sweep.models, sample, sweep.config.protocol, writer.scores, domain=domain, replay=replay)
            writer.add(image)
        writer.save()
        if stopped():
            raise KeyboardInterrupt
        bar.update(task, completed=len(jobs))
    return failed


def _check_encodable(record: Record) -> None:
    """File names are bytes, rows are text. Raises `RuacError` for names that are not UTF-8."""
    for text in (record.id, *record.object_ids):
        if text != _printable(text):
            raise RuacError(f"{_printable(str(record.path))}: the name is not UTF-8; rename the file")


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _progress(*, enabled: bool) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, disable=not enabled)
