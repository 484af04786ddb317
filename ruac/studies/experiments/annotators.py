"""Is a model uncertain where people disagree? Uncertainty maps against several segmentations of each photograph.

Definitions and how to read the numbers: docs/experiments.md.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from matplotlib.figure import Figure
from rich.progress import track

from ruac.backbone.outputs import Features
from ruac.base.errors import RuacError
from ruac.base.files import sha256
from ruac.data.augment import prepare
from ruac.evaluation.metrics import jaccard
from ruac.evaluation.metrics.region import BAND_MIN_RADIUS, BAND_SHARE
from ruac.evaluation.protocol import ProtocolConfig, Round, prompt_objects
from ruac.evaluation.score import blocks
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.methods import is_vanilla
from ruac.evaluation.sweep.opened import load_models
from ruac.inference.export import fingerprint
from ruac.inference.model import UncertainSam, predict
from ruac.inference.predictor import DEFAULT
from ruac.studies.experiments.bootstrap import interval, resampling_weights
from ruac.studies.experiments.outputs import write_outputs
from ruac.studies.experiments.people import Photograph, disagreement, disputed_objects, open_photographs
from ruac.studies.experiments.stratified import contour_distance, measure, strata

FOUND = 0.5
"""J with the prompted region from which on an object counts as found."""


@dataclass
class AnnotatorsConfig:
    """data: folder with ``images/NAME.jpg`` and ``regions/NAME_K.png`` (region numbers of person K, 0 unlabelled).
    models: compared with "vanilla", their backbone without a head, which is added. match: least IoU of the same
    object as drawn by two people. people: fewest others who drew an object. min_area, max_share: smallest prompted
    region in pixels and largest as a share of the picture. pixels: drawn per object from its band, so that objects
    weigh alike. limit: photographs (0: all). replicates: of the bootstrap."""

    data: str = "???"
    models: list[ModelConfig] = field(default_factory=lambda: [ModelConfig("ruac", export=str(DEFAULT))])
    out: str = "runs/annotators"
    match: float = 0.5
    people: int = 3
    min_area: int = 200
    max_share: float = 0.5
    pixels: int = 500
    limit: int = 0
    replicates: int = 1000
    seed: int = 0
    cpu: bool = False
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if not self.models:
            raise RuacError("models: expected at least one")
        if not 0 < self.match <= 1 or not 0 < self.max_share <= 1:
            raise RuacError(f"match {self.match}, max_share {self.max_share}: expected shares in (0, 1]")
        for name in ("people", "min_area", "pixels"):
            if getattr(self, name) < 1:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 1")
        for name in ("limit", "replicates"):
            if getattr(self, name) < 0:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 0")
        if self.protocol.next_click == "replay":
            raise RuacError("protocol.next_click: replay, expected own_error: regions are no objects of a sweep")


def mask_sources(models: dict[str, UncertainSam]) -> dict[str, str]:
    """For each model, the first one with the same masks: heads that change no mask share their backbone's."""
    first: dict[tuple[int, str], str] = {}
    own = {name: name if model.changes_masks else "" for name, model in models.items()}
    return {name: first.setdefault((id(model.backbone), own[name]), name) for name, model in models.items()}


def uncertainty_maps(model: UncertainSam, final: Round, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Named uncertainty maps ``[N, H, W]`` of a model for the masks of `final`.

    Without a head the one map is "entropy", that of SAM 2's sigmoid; with one they are "total", "aleatoric" and
    "epistemic", and the posterior's own scores.
    """
    prediction = predict(final.prediction.decoded, model.head)
    answer = prediction.maps(final.choice[:, None], size, parts=True)
    maps = {"entropy" if prediction.posterior is None else "total": answer.total} | answer.parts | answer.own
    return {name: values[:, 0].float().cpu().numpy() for name, values in maps.items()}


@dataclass
class Pixels:
    """Columns over the pixels drawn. found: whether every model's mask has J of 1/2 with the prompted region. scores
    and strata have one array per score; the strata are those of the mask that the score belongs to."""

    photograph: np.ndarray
    object: np.ndarray
    found: np.ndarray
    target: np.ndarray
    scores: dict[str, np.ndarray]
    strata: dict[str, np.ndarray]


@torch.no_grad()
def collect(photographs: list[Photograph], models: dict[str, UncertainSam], config: AnnotatorsConfig) -> Pixels:
    """Prompt every region that enough people drew, for every model, and draw pixels from the bands.

    The band: pixels within ``max(3, sqrt(area) / 4)`` of the prompted region's contour, on both sides. Scores beside
    the models' maps: MODEL.contour, nearness to the predicted contour, and person.contour, nearness to the prompted
    person's own. Raises `RuacError` if no region qualifies.
    """
    sources = mask_sources(models)
    columns: dict[str, list[np.ndarray]] = defaultdict(list)
    belongs: dict[str, str] = {}  # score -> the model whose mask it belongs to
    count = 0
    for index, photograph in enumerate(track(photographs, description="photographs")):
        image, people = photograph.read()
        features = _encode(image, models)
        areas = (config.min_area, config.max_share * people[0].size)
        for person, path in enumerate(photograph.people):
            objects = disputed_objects(people, person, match=config.match, least=config.people, areas=areas)
            target = disagreement(objects.frequency)
            backbones = (model.backbone for model in models.values())
            for block in blocks(len(objects.numbers), *backbones, pixels=people[0].size):
                truth, numbers = objects.masks[block], objects.numbers[block]
                keys = [f"{path.stem}/{number}" for number in numbers]
                final = {
                    name: _last_round(models[name], features, truth, config.protocol, keys)
                    for name in dict.fromkeys(sources.values())
                }
                maps: dict[str, np.ndarray] = {}
                for name, model in models.items():
                    own = uncertainty_maps(model, final[sources[name]], image.shape[:2])
                    maps |= {f"{name}.{score}": values for score, values in own.items()}
                    belongs |= {f"{name}.{score}": sources[name] for score in own}
                found = np.min([jaccard(last.masks, truth) for last in final.values()], axis=0) >= FOUND
                for n, number in enumerate(numbers):
                    nearness = {name: contour_distance(last.masks[n]) for name, last in final.items()}
                    to_person = contour_distance(truth[n])
                    rng = np.random.default_rng([config.seed, index, person, int(number)])
                    place = _band_pixels(truth[n], to_person, config.pixels, rng)
                    drawn = {f"stratum|{name}": strata(final[name].masks[n], d) for name, d in nearness.items()}
                    drawn |= {f"{name}.contour": -d for name, d in nearness.items()}
                    drawn |= {score: values[n] for score, values in maps.items()}
                    drawn |= {"person.contour": -to_person, "target|": target[block][n]}
                    for name, values in drawn.items():
                        columns[name].append(values.ravel()[place])
                    for name, value in (("photograph|", index), ("object|", count), ("found|", found[n])):
                        columns[name].append(np.full(len(place), value))
                    count += 1
    if not count:
        raise RuacError(f"{config.data}: no region of min_area={config.min_area} that {config.people} others drew too")
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    belongs |= {f"{name}.contour": name for name in sources.values()}
    belongs["person.contour"] = next(iter(sources.values()))
    return Pixels(
        **{name: joined[f"{name}|"] for name in ("photograph", "object", "found", "target")},
        scores={score: joined[score] for score in belongs},
        strata={score: joined[f"stratum|{name}"] for score, name in belongs.items()},
    )


def _encode(image: np.ndarray, models: dict[str, UncertainSam]) -> dict[int, Features]:
    features = {}
    for body in {id(model.backbone): model.backbone for model in models.values()}.values():
        pixels = prepare(image, body.frame(image.shape[:2]))
        features[id(body)] = body.encode(pixels.to(next(body.parameters()).device))
    return features


def _last_round(
    model: UncertainSam, features: dict[int, Features], truth: np.ndarray, protocol: ProtocolConfig, keys: list[str]
) -> Round:
    own = features[id(model.backbone)]
    *_, final = prompt_objects(
        model.decode, own, truth, protocol, frame=model.backbone.frame(truth.shape[1:]), keys=keys
    )
    return final


def _band_pixels(truth: np.ndarray, distance: np.ndarray, pixels: int, rng: np.random.Generator) -> np.ndarray:
    """Flat places of at most `pixels` pixels drawn from the band around the contour of `truth`."""
    radius = max(BAND_MIN_RADIUS, BAND_SHARE * math.sqrt(np.count_nonzero(truth)))
    band = np.flatnonzero(distance <= radius)
    return rng.choice(band, min(pixels, len(band)), replace=False)


def compare(pixels: Pixels, *, replicates: int, seed: int, baseline: str) -> pd.DataFrame:
    """One row per scope, score, measure, aggregation and control, with a 95 % interval over photographs.

    Also the differences of every score to `baseline`, from the same replicates. scope: "all" objects, or those
    "found" by every model.
    """
    rows = []
    for scope, inside in (("all", np.ones_like(pixels.found)), ("found", pixels.found)):
        if not inside.any():
            continue
        photograph = np.unique(pixels.photograph[inside], return_inverse=True)[1]
        weights = resampling_weights(photograph.max() + 1, replicates, seed)
        target = pixels.target[inside]
        results = {
            name: measure(
                values[inside], target, photograph=photograph, stratum=pixels.strata[name][inside], weights=weights
            )
            for name, values in pixels.scores.items()
        }
        counts = {
            "photographs": int(photograph.max() + 1),
            "objects": len(np.unique(pixels.object[inside])),
            "pixels": len(target),
            "disputed": float((target > 0).mean()),
        }
        differences = {
            f"{name} - {baseline}": {key: result[key] - results[baseline][key] for key in result}
            for name, result in results.items()
            if name != baseline
        }
        for name, result in (results | differences).items():
            for (kind, aggregation, controlled), values in result.items():
                low, high = interval(values)
                row = {"scope": scope, "score": name, "measure": kind, "aggregation": aggregation}
                row |= {"controlled": controlled, "value": values[0], "low": float(low), "high": float(high)}
                rows.append(row | counts)
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, scope: str = "all") -> str:
    """Measures with their intervals, one line per score or difference, pooled over photographs."""
    rows = table[(table.scope == scope) & (table.aggregation == "pooled")]
    text = rows.apply(lambda row: f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]", axis=1)
    name = rows.measure + rows.controlled.map({True: " | distance", False: ""})
    return pd.crosstab(rows.score, name, text, aggfunc="first").to_string()


def draw_figure(table: pd.DataFrame, pixels: Pixels) -> Figure:
    """Left: AUROC with and without control. Right: mean uncertainty by distance, for disputed and undisputed pixels."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = table[(table.scope == "all") & (table.measure == "auroc") & (table.aggregation == "pooled")]
    names = list(pixels.scores)
    for offset, controlled in ((-0.15, False), (0.15, True)):
        own = rows[rows.controlled == controlled].set_index("score").loc[names]
        ends = np.maximum([own.value - own.low, own.high - own.value], 0)
        label = "at equal distance to the predicted contour" if controlled else "as it is"
        left.errorbar(own.value, np.arange(len(names)) + offset, xerr=ends, fmt="o", capsize=3, label=label)
    left.axvline(0.5, color="grey", linewidth=0.8)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set_xlabel("AUROC for disputed pixels, 95 % over photographs")
    left.legend(fontsize=8)
    distance = -pixels.scores["person.contour"]
    edges = np.arange(0.5, 13.5)
    shown = [name for name in names if name.endswith((".entropy", ".total"))]
    for number, name in enumerate(shown):
        for disputed, style in ((True, "-"), (False, "--")):
            inside = (pixels.target > 0) == disputed
            place = np.digitize(distance[inside], edges)
            count = np.bincount(place, minlength=len(edges) + 1)[1:-1]
            total = np.bincount(place, pixels.scores[name][inside], minlength=len(edges) + 1)[1:-1]
            mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
            label = f"{name}, {'disputed' if disputed else 'undisputed'}"
            right.plot(edges[:-1] + 0.5, mean, style, color=f"C{number}", label=label)
    right.set_xlabel("distance to the prompted person's contour, pixels")
    right.set_ylabel("mean uncertainty")
    right.set_ylim(0, 1)
    right.legend(fontsize=8)
    return figure


def run_annotators(config: AnnotatorsConfig) -> Path:
    """Run the experiment and print its summary; returns the folder. Raises `RuacError` for unusable data or models."""
    photographs = open_photographs(config.data)
    if config.limit:
        photographs = photographs[: config.limit]
    models = load_models(SweepConfig(models=config.models), PartialState(cpu=config.cpu).device)
    for name, model in models.items():
        if type(model) is not UncertainSam or model.filters:  # the sweep makes these, after the last click
            raise RuacError(f"model {name!r}: {type(model).__name__}, expected SAM 2 with or without a head")
    pixels = collect(photographs, models, config)
    plain = next((name for name, model in models.items() if is_vanilla(model)), None)
    baseline = f"{plain}.entropy" if plain else f"{next(iter(models))}.total"
    table = compare(pixels, replicates=config.replicates, seed=config.seed, baseline=baseline)
    facts = {
        "models": {name: fingerprint(model) for name, model in models.items()},
        "data": {path.name: sha256(path) for photo in photographs for path in (photo.image, *photo.people)},
    }
    print(summary(table))
    figure = draw_figure(table, pixels)
    return write_outputs(config.out, "annotators", config=config, table=table, figure=figure, facts=facts)
