"""The reader of looks, fitted to a frozen model on source pixels, clean and under stress (method, sec. 7)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from rich.progress import track
from torch import Tensor

from ruac.backbone import backbone_config, load_backbone
from ruac.backbone.clicks import answer_and_correct
from ruac.backbone.outputs import of_token, upsample
from ruac.backbone.prompts import first_prompts
from ruac.base.errors import RuacError
from ruac.base.provenance import environment
from ruac.calibration.descent import fit_scale, scaled_pixels
from ruac.calibration.temperature import nll
from ruac.data.augment import prepare
from ruac.data.identity import dataset_hash
from ruac.data.open import open_dataset
from ruac.data.sample import MaskDataset, check_orientation
from ruac.data.synthetic.stress import StressConfig, stress
from ruac.inference.export import export_model, exported_backbone, load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import Look, LooksConfig, Question, ask_look
from ruac.training.losses.band import loss_band
from ruac.uncertainty.look_reader import LookReader, LookReaderConfig


@dataclass
class LookReaderFitConfig:
    """export: a folder of ruac export whose model gets looks and a reader; or backbone: SAM 2 without a head. source,
    split: training images, never a domain of the sweep.

    looks: what follows the first answer; one look, which the reader reads beside it. images: drawn, each as it is and,
    with stressed, once more under stress. objects: most of an image. corrections: at most so many random clicks after
    the first prompt, any number alike. pixels: drawn of each object's band, so that objects weigh alike; map_pixels: of
    its whole window. steps, batch, rate: of AdamW, cosine."""

    source: str = "???"
    out: str = "runs/look_reader"
    export: str | None = None
    backbone: str | None = None
    split: str | None = None
    orientation: str = "seen"
    looks: LooksConfig = field(default_factory=LooksConfig)
    reader: LookReaderConfig = field(default_factory=LookReaderConfig)
    images: int = 350
    stressed: bool = True
    stress: StressConfig = field(default_factory=StressConfig)
    objects: int = 6
    corrections: int = 2
    box_share: float = 0.2
    pixels: int = 100
    map_pixels: int = 40
    steps: int = 1500
    batch: int = 4096
    rate: float = 5e-3
    seed: int = 0
    cpu: bool = False

    def validate(self) -> None:
        if (self.export is None) == (self.backbone is None):
            raise RuacError("expected exactly one of export= and backbone=")
        if len(self.looks.looks) != 1:
            raise RuacError(f"looks.looks: {self.looks.looks}, expected one look for the reader to read")
        check_orientation(self.orientation)
        for name in ("images", "objects", "pixels", "steps", "batch"):
            if getattr(self, name) < 1:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 1")
        if min(self.corrections, self.map_pixels) < 0 or not 0 <= self.box_share <= 1 or self.rate <= 0:
            raise RuacError("expected corrections and map_pixels of at least 0, box_share in [0, 1] and rate above 0")


@dataclass(frozen=True)
class LookPixels:
    """inputs: of the reader, ``[P, C]``. logits: of the mean of both looks. truth: 0 or 1."""

    inputs: Tensor
    logits: Tensor
    truth: Tensor

    @torch.no_grad()
    def loss(self, reader: LookReader) -> float:
        """Mean negative log-likelihood in nats."""
        return float(nll(scaled_pixels(reader, self.inputs, self.logits), self.truth).mean())


def run_look_reader_fit(config: LookReaderFitConfig) -> Path:
    """Fit and export to ``config.out``. Raises `RuacError` for unusable input."""
    device = PartialState(cpu=config.cpu).device
    if config.backbone is not None:
        model, spec, whole = UncertainSam(load_backbone(config.backbone), None), backbone_config(config.backbone), True
    else:
        model, (spec, whole) = load_exported(config.export), exported_backbone(config.export)
    model.to(device).eval()
    dataset = open_dataset(config.source, split=config.split, orientation=config.orientation)
    pixels = draw_look_pixels(model, dataset, config)
    torch.manual_seed(config.seed)
    reader = LookReader(config.reader)
    reader.standardise(pixels.inputs)
    before = pixels.loss(reader)
    generator = torch.Generator().manual_seed(config.seed)
    settings = {"steps": config.steps, "batch": config.batch, "rate": config.rate, "generator": generator}
    fit_scale(reader, pixels.inputs, pixels.logits, pixels.truth, **settings)
    after = pixels.loss(reader)
    model.looks, model.reader = config.looks, reader.eval().to(device)
    record = {
        "look_reader_fit": asdict(config),
        "source_sha256": dataset_hash(dataset),
        "pixels": len(pixels.logits),
        "nll": {"before": before, "after": after},
        "environment": environment(),
    }
    return export_model(model, spec, config.out, with_backbone=whole, record=record)


@torch.no_grad()
def draw_look_pixels(model: UncertainSam, dataset: MaskDataset, config: LookReaderFitConfig) -> LookPixels:
    """Pixels of bands and windows of objects that were looked at twice, in clean and stressed pictures; on the CPU.

    Raises `RuacError` where no object at all was looked at again.
    """
    rng = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    drawn: list[tuple[Tensor, ...]] = []
    picks = rng.permutation(len(dataset))[: config.images]
    for number in track(picks, description="source images"):
        sample = dataset[int(number)]
        masks = sample.masks[rng.permutation(len(sample.masks))[: config.objects]]
        _draw(model, sample.image, masks, config, drawn)
        if config.stressed:
            _draw(model, *stress(sample.image, masks, config.stress, rng), config, drawn)
    if not drawn:
        raise RuacError(f"{dataset.name}: no object was looked at again; all of them fill their pictures")
    return LookPixels(*(torch.cat(column) for column in zip(*drawn, strict=True)))


def _draw(model: UncertainSam, image: np.ndarray, masks: np.ndarray, config: LookReaderFitConfig, drawn: list) -> None:
    """Ask for the objects of one picture twice and add pixels of their windows."""
    frame, device = model.backbone.frame(image.shape[:2]), next(model.parameters()).device
    truth = F.interpolate(torch.from_numpy(masks)[None].float(), frame, mode="area")[0] > 0.5
    kept = truth.flatten(1).any(1)
    truth, masks = truth[kept].to(device), masks[kept.numpy()]
    if not len(truth):
        return
    features = model.encode(prepare(image, frame).to(device)).expand(len(truth))
    prompts = first_prompts(truth, box_share=config.box_share)
    corrections = int(torch.randint(config.corrections + 1, ()))
    *_, (prediction, choice, asked) = answer_and_correct(
        lambda prompts: model.decode(features, prompts), prompts, truth, corrections=corrections
    )
    own = of_token(prediction.decoded.logits, choice)
    seen = (upsample(own, image.shape[:2])[:, 0] > 0).cpu().numpy()
    question = Question(image, asked, prediction, choice, seen)
    look = ask_look(model, config.looks, question, config.looks.looks[0])
    if look is None:
        return
    inputs = look.reader_inputs(question).movedim(1, -1)  # [M, h, w, C]
    mean, targets = _mean_logits(look, question), _targets(look, masks, inputs.shape[1]).to(device)
    for m, band in enumerate(loss_band(targets)):
        place = band.nonzero()
        if not len(place):
            continue
        inside = place[torch.randint(len(place), (config.pixels,), device=device)]
        anywhere = torch.randint(inputs.shape[1], (config.map_pixels, 2), device=device)
        y, x = torch.cat([inside, anywhere]).unbind(1)
        drawn.append(tuple(maps[m, y, x].cpu() for maps in (inputs, mean, targets)))


def _mean_logits(look: Look, question: Question) -> Tensor:
    """Logit of the mean of both calibrated probabilities on each window's grid, ``[M, h, w]``."""
    first = question.prediction.calibrated_logit(question.choice)[look.index]
    first = torch.stack(
        [view.resample(logit, look.prediction.logits.shape[-2:]) for view, logit in zip(look.views, first, strict=True)]
    )
    second = look.prediction.calibrated_logit(look.choice)
    second = torch.stack([one.flip(-1) if view.flip else one for one, view in zip(second, look.views, strict=True)])
    both = torch.stack([first, second])
    mean = F.logsigmoid(both).logsumexp(0) - F.logsigmoid(-both).logsumexp(0)
    return mean[:, 0]


def _targets(look: Look, masks: np.ndarray, cells: int) -> Tensor:
    """Whether the object covers at least half of each cell of its window, ``float [M, cells, cells]``."""
    covered = []
    for n, view in zip(look.index, look.views, strict=True):
        window = torch.from_numpy(np.ascontiguousarray(masks[n][view.window])).float()[None, None]
        covered.append(F.interpolate(window, (cells, cells), mode="area")[0, 0])
    return (torch.stack(covered) >= 0.5).float()
