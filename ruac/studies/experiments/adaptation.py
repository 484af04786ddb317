"""Is a temperature that is found on unlabelled pictures of a domain, by agreement of looks, better than none there?

Marked wherever it stands: it uses pictures of the target domain. Answers of two looks disagree about as often as they
are wrong, up to a factor (Jiang et al. 2022, who have it at 1 for networks that were trained apart); the factor is
measured on source pictures, and the temperature chosen at which a domain's expected error is that share of its
disagreement. A temperature ranks nothing anew: only calibration can gain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from matplotlib.figure import Figure
from rich.progress import track
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit

from ruac.base.errors import RuacError
from ruac.data.identity import dataset_hash
from ruac.data.open import open_dataset
from ruac.data.sample import MaskDataset, Sample
from ruac.evaluation.metrics import ReliabilitySums, object_band, update_sums
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import objects_of, question_of
from ruac.evaluation.sweep.open import open_domains
from ruac.inference.export import fingerprint, load_exported
from ruac.inference.look_mean import combine
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import LooksConfig, ask_look
from ruac.studies.experiments.outputs import write_outputs

COLDEST, HOTTEST = 0.05, 20.0
ROWS = ("none", "source", "adapted", "oracle")


@dataclass
class AdaptationConfig:
    """export: a model that can look again. source, split: labelled pictures that were trained on by nobody, which say
    how often disagreement is error, and the temperature of the row ``source``. domains: as in a sweep; a temperature is
    found on every second picture and measured on the others. images: per domain, source_images: of the source, spread
    evenly (0: all). objects, pixels: of a picture, and of each one's band, at most so many. seed: of the pixels."""

    export: str = "???"
    source: str = "???"
    split: str | None = "val"
    domains: list[str] = field(default_factory=list)
    look: str = "zoom"
    out: str = "runs/adaptation"
    images: int = 8
    source_images: int = 60
    objects: int = 6
    pixels: int = 300
    seed: int = 0
    cpu: bool = False
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if not self.domains:
            raise RuacError("domains: expected at least one entry")
        for name in ("images", "source_images"):
            if (count := getattr(self, name)) < 0 or count == 1:
                raise RuacError(f"{name} {count}: expected at least 2, or 0 for all")
        if self.objects < 1 or self.pixels < 1:
            raise RuacError(f"objects {self.objects}, pixels {self.pixels}: expected at least 1")
        LooksConfig(looks=[self.look]).validate()


@dataclass(frozen=True)
class BandPixels:
    """Of objects that were looked at twice, an equal number of pixels each. logit: of the probability ``[P]``. truth,
    apart: whether it is the object, and whether both looks' masks differ, ``bool [P]``. half: 0 or 1, of its picture.
    """

    logit: np.ndarray
    truth: np.ndarray
    apart: np.ndarray
    half: np.ndarray

    def of(self, half: int) -> BandPixels:
        at = self.half == half
        return BandPixels(self.logit[at], self.truth[at], self.apart[at], self.half[at])

    @property
    def error(self) -> float:
        """Share of pixels whose side is wrong."""
        return float(((self.logit > 0) != self.truth).mean())

    @property
    def disagreement(self) -> float:
        return float(self.apart.mean())


@torch.no_grad()
def band_pixels(dataset: MaskDataset, model: UncertainSam, config: AdaptationConfig, images: int) -> BandPixels | None:
    """Of so many pictures, 0 for all; None where no object was looked at again in one half of them."""
    count = min(images or len(dataset), len(dataset))
    drawn = []
    for turn, place in enumerate(track(np.linspace(0, len(dataset) - 1, count).astype(int), description=dataset.name)):
        rng = np.random.default_rng([config.seed, int(place)])
        for columns in _twice(objects_of(dataset[place], slice(config.objects)), model, config, rng):
            drawn.append((*columns, np.full(config.pixels, turn % 2)))
    if len({int(columns[-1][0]) for columns in drawn}) < 2:
        return None
    return BandPixels(*(np.concatenate(column) for column in zip(*drawn, strict=True)))


def _twice(sample: Sample, model: UncertainSam, config: AdaptationConfig, rng: np.random.Generator) -> list[tuple]:
    looks = LooksConfig(looks=[config.look])
    keys = [f"{sample.record.id}/{key}" for key in sample.record.object_ids]
    question = question_of(model, sample.image, sample.masks, config.protocol, keys)
    look = ask_look(model, looks, question, config.look)
    if look is None:
        return []
    probability = combine(question, [look], looks, reader=model.reader).maps.probability[:, 0].double().cpu()
    second = look.prediction.decoded.logits[torch.arange(len(look.index)), look.choice][:, None]
    bands, drawn = object_band(sample.masks), []
    for row, (n, view) in enumerate(zip(look.index, look.views, strict=True)):
        apart = np.zeros_like(question.masks[n])
        theirs = view.place(second[row : row + 1])[0, 0].cpu().numpy() > 0
        apart[view.window] = theirs != question.masks[n][view.window]
        y, x = np.nonzero(bands[n])
        if not len(y):
            continue
        some = rng.integers(len(y), size=config.pixels)
        at = y[some], x[some]
        drawn.append((torch.logit(probability[n], 1e-12).numpy()[at], sample.masks[n][at], apart[at]))
    return drawn


def temperature_of(pixels: BandPixels, error: float) -> float:
    """The temperature at which the expected error ``mean sigmoid(-|logit| / T)`` is `error`, within the bounds."""

    def over(log: float) -> float:
        return float(expit(-np.abs(pixels.logit) / np.exp(log)).mean()) - error

    low, high = np.log(COLDEST), np.log(HOTTEST)
    if over(low) >= 0:
        return COLDEST
    return HOTTEST if over(high) <= 0 else float(np.exp(brentq(over, low, high)))


def best_temperature(pixels: BandPixels) -> float:
    """The one of least negative log-likelihood, which needs labels."""
    signed = np.where(pixels.truth, pixels.logit, -pixels.logit)

    def loss(log: float) -> float:
        return float(np.logaddexp(0, -signed / np.exp(log)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded").x))


def measure(domain: str, pixels: BandPixels, source: BandPixels) -> list[dict]:
    """A row per way of choosing the temperature, each found on half of the pictures and measured on the other, twice.

    Values are means over the two.
    """
    factor = source.error / source.disagreement
    rows = []
    for name in ROWS:
        found = []
        for half in (0, 1):
            seen, kept = pixels.of(half), pixels.of(1 - half)
            temperature = {
                "none": lambda: 1.0,
                "source": lambda: best_temperature(source),
                "adapted": lambda seen=seen: temperature_of(seen, min(factor * seen.disagreement, 0.5)),
                "oracle": lambda seen=seen: best_temperature(seen),
            }[name]()
            found.append({"temperature": temperature} | _calibration(kept, temperature))
        mean = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
        about = {"error": pixels.error, "disagreement": pixels.disagreement, "pixels": len(pixels.logit)}
        rows.append({"domain": domain, "row": name, **mean, **about})
    return rows


def _calibration(pixels: BandPixels, temperature: float) -> dict[str, float]:
    probability = expit(pixels.logit / temperature)[None, None]
    sums = {("total", "band"): ReliabilitySums()}
    update_sums(
        sums,
        probability=probability,
        uncertainty={"total": 4 * probability * (1 - probability)},
        target=pixels.truth[None, None],
        prediction=probability > 0.5,
        regions={"band": None},
    )
    values = sums["total", "band"].compute()
    return {name: values[name] for name in ("ece", "nll", "brier")}


def run_adaptation(config: AdaptationConfig) -> Path:
    """Run the experiment and print its summary; returns the folder. Raises `RuacError` for unusable input."""
    domains, known = open_domains(config.domains), open_dataset(config.source, split=config.split)
    model = load_exported(config.export).to(PartialState(cpu=config.cpu).device).eval()
    source = band_pixels(known, model, config, config.source_images)
    if source is None or not source.disagreement:
        raise RuacError(
            f"{known.name}: no object, or none on which looks disagree; expected some to compare errors with"
        )
    rows, left_out = [], []
    for name, data in domains.items():
        found = band_pixels(data, model, config, config.images)
        rows += measure(name, found, source) if found is not None else []
        left_out += [name] if found is None else []
    if not rows:
        raise RuacError("domains: in none of them an object is small enough to be looked at again")
    table = pd.DataFrame(rows)
    short = table.groupby("row", sort=False)[["temperature", "ece", "nll", "brier"]].mean()
    plain = table[table.row == "none"].set_index("domain")
    for key in ("ece", "nll"):
        gains = [(table[table.row == row].set_index("domain")[key] < plain[key]).sum() for row in short.index]
        short[f"{key}_better"] = gains
    print(f"source: error {source.error:.4f}, disagreement {source.disagreement:.4f}")
    print(short.round(4).to_string())
    if left_out:
        print(f"left out, since no object of one half was looked at again: {', '.join(left_out)}")
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.scatter(plain.disagreement, plain.error)
    axes.axline((0, 0), slope=source.error / source.disagreement, linestyle="--", label="as on source")
    axes.set(xlabel="disagreement of the looks", ylabel="error in the band, by domain", xlim=(0, None), ylim=(0, None))
    axes.legend()
    facts = {
        "uses_target_images": True,
        "left_out": left_out,
        "model": fingerprint(model),
        "factor": source.error / source.disagreement,
        "data": {name: dataset_hash(data) for name, data in {known.name: known, **domains}.items()},
        "summary": short.reset_index().to_dict("records"),
    }
    return write_outputs(config.out, "adaptation", config=config, table=table, figure=figure, facts=facts)
