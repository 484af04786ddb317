"""How much does the prompt path move J&F, compared with what a method moves?

Definitions and how to read the numbers: docs/experiments.md.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from accelerate import PartialState
from matplotlib.figure import Figure
from rich.progress import track

from ruac.base.errors import RuacError
from ruac.base.provenance import settings_of
from ruac.base.version import VERSION
from ruac.data.identity import dataset_hash
from ruac.data.sample import MaskDataset, Sample
from ruac.evaluation.metrics import boundary_f, jaccard
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Encodings, answer_image, blocks, objects_of
from ruac.evaluation.sweep.chunks import Chunk, chunk_path, is_finished, load_chunk, save_chunk
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.methods import is_vanilla
from ruac.evaluation.sweep.open import open_domains
from ruac.evaluation.sweep.opened import load_models
from ruac.inference.export import fingerprint
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import DEFAULT
from ruac.studies.experiments.bootstrap import interval, resampling_weights, weighted_mean
from ruac.studies.experiments.outputs import write_outputs
from ruac.studies.experiments.postprocess import FallbackBackbone, clean_masks

SAM2_AREA = 8 / 256**2
"""Share of the picture of the holes that SAM 2's video demo fills: 8 pixels of its 256x256 mask."""

CHUNK = 8  # images between two saves

UNITS = ("image", "object")


@dataclass
class PathConfig:
    """One prompt path. area: largest hole or speck that is removed from the final mask, as a share of the picture
    (0: none). stability: below which the single mask falls back to a candidate (0: never)."""

    name: str = "???"
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    area: float = 0.0
    stability: float = 0.0

    def validate(self) -> None:
        if not self.name or self.name[0] == "." or set(self.name) & set("|/"):
            raise RuacError(f"path {self.name!r}: expected a name without '|', '/' and a dot in front")
        if not 0 <= self.area < 1 or not 0 <= self.stability <= 1:
            raise RuacError(f"path {self.name!r}: area {self.area}, stability {self.stability}, expected shares")
        if self.stability and self.protocol.multimask:
            raise RuacError(f"path {self.name!r}: stability acts on the single mask, expected protocol.multimask=false")
        if self.protocol.next_click == "replay":
            raise RuacError(f"path {self.name!r}: protocol.next_click: replay, expected own_error")


def default_paths() -> list[PathConfig]:
    """The reference first, then one change at a time, then all that lower the score together."""
    protocols = {
        "reference": {},
        "random_click": {"first_click": "random"},
        "single_mask": {"multimask": False},
        "no_feedback": {"feedback": False},
        "oracle_choice": {"mask_choice": "oracle"},
        "box": {"box": True},
        "one_click": {"clicks": 1},
        "random_single_no_feedback": {"first_click": "random", "multimask": False, "feedback": False},
    }
    paths = [PathConfig(name, ProtocolConfig(**changes)) for name, changes in protocols.items()]
    single = ProtocolConfig(multimask=False)
    return [
        *paths,
        PathConfig("single_mask_fallback", single, stability=0.98),
        PathConfig("post_processing", area=SAM2_AREA),
        PathConfig("post_processing_10x", area=10 * SAM2_AREA),
    ]


@dataclass
class PromptPathsConfig:
    """models: taken along every path, with "vanilla", their backbone without a head. domains: as in a sweep. paths:
    the first one is the reference. limit: images per domain (0: all). unit: what the bootstrap draws, ``image`` with
    all its objects or ``object``. replicates: of the bootstrap."""

    models: list[ModelConfig] = field(default_factory=lambda: [ModelConfig("ruac", export=str(DEFAULT))])
    domains: list[str] = field(default_factory=list)
    out: str = "runs/prompt_paths"
    paths: list[PathConfig] = field(default_factory=default_paths)
    limit: int = 0
    unit: str = "image"
    replicates: int = 2000
    seed: int = 0
    cpu: bool = False

    def validate(self) -> None:
        if not self.models or not self.domains:
            raise RuacError("prompt_paths: expected at least one entry under models and under domains")
        names = [path.name for path in self.paths]
        if not names or len(set(names)) < len(names):
            raise RuacError(f"paths: expected one or more with names that differ, found {names}")
        if self.unit not in UNITS:
            raise RuacError(f"unit: {self.unit!r}, expected {' or '.join(UNITS)}")
        for name in ("limit", "replicates"):
            if getattr(self, name) < 0:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 0")


def score_image(
    models: dict[str, UncertainSam], sample: Sample, path: PathConfig, encodings: Encodings, *, domain: str
) -> list[dict]:
    """One row per object and model, with J and F after the last click. models: on a `FallbackBackbone`.

    encodings: of this image, shared by the paths.
    """
    rows = []
    for model in models.values():
        model.backbone.stability = path.stability
    area = round(path.area * sample.masks[0].size)
    backbones = (model.backbone for model in models.values())
    for block in blocks(len(sample.masks), *backbones, pixels=sample.masks[0].size):
        part = objects_of(sample, block)
        measured: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # models that share a run share their masks
        for name, answer in answer_image(models, part, path.protocol, encodings=encodings).items():
            if id(answer.masks) not in measured:
                masks = clean_masks(answer.masks, area)
                measured[id(answer.masks)] = jaccard(masks, part.masks), boundary_f(masks, part.masks)
            j, f = measured[id(answer.masks)]
            for index, key in enumerate(part.record.object_ids):
                row = {"domain": domain, "image": part.record.id, "object": key, "model": name}
                rows.append(row | {"j": float(j[index]), "f": float(f[index])})
    return rows


def sweep_paths(
    config: PromptPathsConfig, models: dict[str, UncertainSam], domains: dict[str, MaskDataset]
) -> pd.DataFrame:
    """Rows of every path, continuing whatever is finished: one folder of chunks per path under ``config.out``."""
    bodies = {id(model.backbone): FallbackBackbone(model.backbone).eval() for model in models.values()}
    for model in models.values():
        model.backbone = bodies[id(model.backbone)]
    prints = {name: fingerprint(model) for name, model in models.items()}
    frames = []
    for domain, dataset in domains.items():
        data = [dataset_hash(dataset), config.limit]
        keys = {path.name: path_key(path, models, prints, data) for path in config.paths}
        count = min(len(dataset), config.limit or len(dataset))
        for start in track(range(0, count, CHUNK), description=domain):
            files = {
                p.name: chunk_path(Path(config.out) / p.name, domain, f"{start // CHUNK:06d}") for p in config.paths
            }
            missing = [path for path in config.paths if not is_finished(files[path.name], keys[path.name])]
            found: dict[str, list[dict]] = {path.name: [] for path in missing}
            for position in range(start, min(start + CHUNK, count)) if missing else ():
                sample = dataset[position]
                encodings = Encodings(sample.image)
                for path in missing:
                    found[path.name] += score_image(models, sample, path, encodings, domain=domain)
            for name, rows in found.items():
                save_chunk(files[name], Chunk([f"from {start}"], [pa.RecordBatch.from_pylist(rows)], {}), keys[name])
            for name, file in files.items():
                frames += [rows.to_pandas().assign(path=name) for rows in load_chunk(file, keys[name]).rows]
    return pd.concat(frames, ignore_index=True)


def path_key(path: PathConfig, models: dict[str, UncertainSam], prints: dict[str, str], data: list) -> str:
    """Hash of all that a path's numbers on a domain depend on. prints: fingerprints of the models."""
    content = {
        "version": VERSION,
        "path": asdict(path),
        "models": {
            name: [prints[name], type(model).__name__, model.image_size, model.head and settings_of(model.head.config)]
            for name, model in models.items()
        },
        "data": data,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def compare(
    frame: pd.DataFrame, *, reference: str, baseline: str, unit: str, replicates: int, seed: int
) -> pd.DataFrame:
    """Differences in J, F and J&F, paired by object, with 95 % intervals; per domain and as the mean over domains.

    frame: rows with path, domain, image, object, model, j, f. kind "path": a model on a path against the same model on
    the `reference`. kind "method": a model against the `baseline` model, both on the same path. The mean over domains
    draws within each domain: its interval speaks of these domains, not of others.
    """
    frame = frame.assign(jf=(frame.j + frame.f) / 2)
    place, scores = ["domain", "image", "object"], ["jf", "j", "f"]
    by = {key: rows.set_index(place)[scores] for key, rows in frame.groupby(["path", "model"], sort=False)}
    pairs = [("path", key, (reference, key[1])) for key in by if key[0] != reference]
    pairs += [("method", key, (key[0], baseline)) for key in by if key[1] != baseline]
    rows = []
    for kind, ours, theirs in pairs:
        values = by[ours].join(by[theirs], rsuffix="_reference", how="inner").reset_index()
        drawn = {}
        for domain, own in values.groupby("domain", sort=False):
            drawn[domain] = _replicates(own, scores, unit, replicates, seed + len(drawn))
        sizes = values.groupby("domain").size().to_dict()
        mean = {name: np.mean([own[name] for own in drawn.values()], axis=0) for name in ("difference", "level")}
        for domain, own in [*drawn.items(), ("mean", mean)]:
            low, high = interval(own["difference"])
            row = {"kind": kind, "model": ours[1], "path": ours[0], "against": theirs[kind == "method"]}
            row |= {"domain": domain, "objects": sizes.get(domain, len(values)), "jf": own["level"][0, 0]}
            for index, name in enumerate(scores):
                row |= {name: own["level"][0, index], f"{name}_difference": own["difference"][0, index]}
                row |= {f"{name}_low": low[index], f"{name}_high": high[index]}
            rows.append(row)
    return pd.DataFrame(rows)


def _replicates(own: pd.DataFrame, scores: list[str], unit: str, replicates: int, seed: int) -> dict[str, np.ndarray]:
    """Of one domain: replicates of the mean differences ``[R, scores]``, and the mean scores ``[1, scores]``."""
    level = own[scores].to_numpy()
    difference = level - own[[f"{name}_reference" for name in scores]].to_numpy()
    units = np.unique(own.image, return_inverse=True)[1] if unit == "image" else np.arange(len(own))
    counts = np.bincount(units)
    sums = np.stack([np.bincount(units, column) for column in difference.T], axis=1)  # [units, scores]
    weights = resampling_weights(len(counts), replicates, seed)
    return {"difference": weighted_mean(weights, sums, counts), "level": level.mean(axis=0, keepdims=True)}


def summary(table: pd.DataFrame) -> str:
    """Means over domains in points of J&F, one line per comparison."""
    rows = table[table.domain == "mean"]
    moved = rows.apply(
        lambda r: f"{100 * r.jf_difference:+.2f} [{100 * r.jf_low:+.2f}, {100 * r.jf_high:+.2f}]", axis=1
    )
    shown = rows[["kind", "model", "path", "against"]].assign(jf=(100 * rows.jf).round(2), difference=moved)
    return shown.to_string(index=False)


def draw_figure(table: pd.DataFrame) -> Figure:
    """Differences in points of J&F, mean over domains, with intervals; a line per comparison, a dot per domain."""
    rows = table[table.domain == "mean"].reset_index(drop=True)
    figure = Figure(figsize=(8, 1.2 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in rows.iterrows():
        same = table[["kind", "model", "path"]].eq(row[["kind", "model", "path"]]).all(axis=1)
        domains = table[same & (table.domain != "mean")]
        colour = "C1" if row.kind == "method" else "C0"
        axes.plot(100 * domains.jf_difference, [place] * len(domains), ".", color="grey", alpha=0.4, markersize=4)
        ends = np.maximum([[row.jf_difference - row.jf_low], [row.jf_high - row.jf_difference]], 0) * 100
        axes.errorbar(100 * row.jf_difference, place, xerr=ends, fmt="o", color=colour, capsize=3)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{row.model} | {row.path} against {row.against}" for row in rows.itertuples()])
    axes.invert_yaxis()
    axes.set_xlabel("difference in J&F, points, mean over domains, 95 % (grey: single domains)")
    return figure


def run_prompt_paths(config: PromptPathsConfig) -> Path:
    """Run every path, compare them and print the summary; returns the folder.

    Raises `RuacError` for unusable models, domains or images; what was finished stays.
    """
    models = load_models(SweepConfig(models=config.models), PartialState(cpu=config.cpu).device)
    domains = open_domains(config.domains)
    frame = sweep_paths(config, models, domains)
    baseline = next((name for name, model in models.items() if is_vanilla(model)), next(iter(models)))
    table = compare(
        frame,
        reference=config.paths[0].name,
        baseline=baseline,
        unit=config.unit,
        replicates=config.replicates,
        seed=config.seed,
    )
    print(summary(table))
    facts = {
        "models": {name: fingerprint(model) for name, model in models.items()},
        "data": {name: dataset_hash(dataset) for name, dataset in domains.items()},
        "levels": frame.groupby(["path", "model", "domain"], sort=False)[["j", "f"]]
        .mean()
        .reset_index()
        .to_dict("records"),
    }
    return write_outputs(config.out, "prompt_paths", config=config, table=table, figure=draw_figure(table), facts=facts)
