"""The reader of looks, fitted to a frozen model on source pixels, clean and under stress (method, sec. 7)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from rich.progress import track
from torch import Tensor

from ruac.backbone import backbone_config, load_backbone
from ruac.backbone.load import backbone_name
from ruac.base.errors import RuacError
from ruac.base.provenance import environment
from ruac.calibration.descent import descend
from ruac.calibration.temperature import nll
from ruac.data.identity import dataset_hash
from ruac.data.open import open_dataset
from ruac.data.sample import MaskDataset, check_orientation
from ruac.data.synthetic.stress import StressConfig, stress
from ruac.evaluation.metrics import object_band
from ruac.evaluation.protocol import ProtocolConfig, prompt_objects
from ruac.evaluation.score import Encodings
from ruac.inference.export import export_model, exported_backbone, load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import Look, LooksConfig, Question, ask_look
from ruac.uncertainty.look_reader import LookReader, LookReaderConfig, reread


@dataclass
class LookReaderFitConfig:
    """export: a folder of ruac export whose model gets looks and a reader; or backbone: SAM 2 without a head. source,
    split: training images, never a domain of the sweep.

    looks: what follows the first answer; one look, which the reader reads beside it. unasked: whether the export
    looks again by itself, or only where ``looks=`` asks for it. hidden: width of the reader's layers. images:
    drawn, each as it is and, with stressed, once more under stress. objects: most of an image. protocol: how they
    are prompted, as in the sweep; half of the pictures get all its clicks, the others any number up to that.
    pixels: drawn of each object's band, so that objects weigh alike; map_pixels: of its whole window. held_out:
    share of the images that is not fitted to, and says when to stop. steps, batch, rate: of AdamW, cosine.
    """

    source: str = "???"
    out: str = "runs/look_reader"
    export: str | None = None
    backbone: str | None = None
    split: str | None = None
    orientation: str = "seen"
    looks: LooksConfig = field(default_factory=LooksConfig)
    hidden: int = 48
    unasked: bool = True
    images: int = 350
    stressed: bool = True
    stress: StressConfig = field(default_factory=StressConfig)
    objects: int = 6
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    pixels: int = 200
    map_pixels: int = 60
    held_out: float = 0.2
    steps: int = 1000
    batch: int = 4096
    rate: float = 3e-3
    seed: int = 0
    cpu: bool = False

    def validate(self) -> None:
        if (self.export is None) == (self.backbone is None):
            raise RuacError("expected exactly one of export= and backbone=")
        LookReaderConfig(hidden=self.hidden).validate()
        if len(self.looks.looks) != 1:
            raise RuacError(f"looks.looks: {self.looks.looks}, expected one look for the reader to read")
        check_orientation(self.orientation)
        for name in ("images", "objects", "pixels", "steps", "batch"):
            if getattr(self, name) < 1:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 1")
        if self.map_pixels < 0 or not 0 < self.held_out < 1 or self.rate <= 0:
            raise RuacError("expected map_pixels of at least 0, held_out between 0 and 1 and rate above 0")
        if self.protocol.next_click == "replay":
            raise RuacError("protocol.next_click: replay, expected own_error: there are no clicks to repeat")


@dataclass(frozen=True)
class LookPixels:
    """inputs: of the reader, ``[P, C]``. logits: of the mean of both looks. truth: 0 or 1. image: number of its picture
    among those drawn."""

    inputs: Tensor
    logits: Tensor
    truth: Tensor
    image: Tensor

    def some(self, which: Tensor) -> LookPixels:
        """Those of an index or a mask ``[P]``."""
        return LookPixels(self.inputs[which], self.logits[which], self.truth[which], self.image[which])

    def loss(self, reader: LookReader) -> Tensor:
        """Mean negative log-likelihood in nats."""
        reading = reader.read(self.inputs.T[None, :, :, None])  # taken as a map of one column
        return nll(reread(self.logits[None, None, :, None], reading).reshape(-1), self.truth).mean()


def run_look_reader_fit(config: LookReaderFitConfig) -> Path:
    """Fit and export to ``config.out``. Raises `RuacError` for unusable input."""
    device = PartialState(cpu=config.cpu).device
    if config.backbone is not None:
        model, spec = UncertainSam(load_backbone(config.backbone), None), backbone_config(config.backbone)
        whole = backbone_name(spec) is None
    else:
        model, (spec, whole) = load_exported(config.export), exported_backbone(config.export)
    model.to(device).eval()
    dataset = open_dataset(config.source, split=config.split, orientation=config.orientation)
    pixels = draw_look_pixels(model, dataset, config)
    torch.manual_seed(config.seed)
    reader = LookReader(LookReaderConfig(hidden=config.hidden, look=config.looks.looks[0]))
    fitted, held = _split(pixels, config.held_out)
    reader.standardise(fitted.inputs)
    losses = [_losses(reader, fitted, held)]
    generator = torch.Generator().manual_seed(config.seed)

    def loss(_: int) -> Tensor:
        return fitted.some(torch.randint(len(fitted.truth), (config.batch,), generator=generator)).loss(reader)

    steps = descend(reader, loss, steps=config.steps, rate=config.rate, held_out=lambda: _losses(reader, held)[0])
    losses.append(_losses(reader, fitted, held))
    model.looks, model.reader = config.looks if config.unasked else None, reader.eval().to(device)
    record = {
        "look_reader_fit": asdict(config),
        "source_sha256": dataset_hash(dataset),
        "pixels": len(pixels.logits),
        "steps_kept": steps,
        "nll": {
            name: dict(zip(("before", "after"), pair, strict=True))
            for name, pair in zip(("fitted", "held_out"), zip(*losses, strict=True), strict=True)
        },
        "environment": environment(),
    }
    return export_model(model, spec, config.out, with_backbone=whole, record=record)


def _split(pixels: LookPixels, share: float) -> tuple[LookPixels, LookPixels]:
    """The pixels to fit to and those held out, by picture; the last ones drawn, in random order as they are.

    Raises `RuacError` where one of the two would be empty.
    """
    count = int(pixels.image.max()) + 1
    held = pixels.image >= count - max(1, round(share * count))
    if held.all():
        raise RuacError(f"{count} images: too few to hold out a share of {share:g}; expected at least 2")
    return pixels.some(~held), pixels.some(held)


@torch.no_grad()
def _losses(reader: LookReader, *some: LookPixels) -> list[float]:
    return [float(pixels.loss(reader)) for pixels in some]


@torch.no_grad()
def draw_look_pixels(model: UncertainSam, dataset: MaskDataset, config: LookReaderFitConfig) -> LookPixels:
    """Pixels of bands and windows of objects that were looked at twice, in clean and stressed pictures; on the CPU.

    Raises `RuacError` where no object at all was looked at again.
    """
    rng = np.random.default_rng(config.seed)
    drawn: list[tuple[Tensor, ...]] = []
    images = 0
    picks = rng.permutation(len(dataset))[: config.images]
    for number in track(picks, description="source images"):
        sample = dataset[int(number)]
        masks = sample.masks[rng.permutation(len(sample.masks))[: config.objects]]
        views = [(sample.image, masks)]
        if config.stressed:
            views.append(stress(sample.image, masks, config.stress, rng))
        found = [columns for view in views for columns in look_pixels(model, *view, config, rng)]
        drawn += [(*columns, torch.full_like(columns[-1], images, dtype=torch.int64)) for columns in found]
        images += bool(found)
    if not drawn:
        raise RuacError(f"{dataset.name}: no object was looked at again; all of them fill their pictures")
    return LookPixels(*(torch.cat(column) for column in zip(*drawn, strict=True)))


def look_pixels(
    model: UncertainSam, image: np.ndarray, masks: np.ndarray, config: LookReaderFitConfig, rng: np.random.Generator
) -> list[tuple[Tensor, ...]]:
    """Ask for the objects of one picture twice; inputs, mean logits and truth at pixels of each one's window.

    An entry for each object that was looked at again: ``config.pixels`` of its band, then ``config.map_pixels``.
    """
    body, protocol = model.backbone, config.protocol
    if rng.random() < 0.5:
        protocol = replace(protocol, clicks=int(rng.integers(1, protocol.clicks + 1)))
    keys = [f"{rng.integers(2**62)}" for _ in masks]  # of random first clicks
    encoded, frame = Encodings(image)(body), body.frame(image.shape[:2])
    *_, last = prompt_objects(model.decode, encoded, masks, protocol, frame=frame, keys=keys)
    question = Question(image, last.prompts, last.prediction, last.choice, last.masks)
    look = ask_look(model, config.looks, question, config.looks.looks[0])
    if look is None:
        return []
    inputs = look.reader_inputs(question).movedim(1, -1)  # [M, h, w, C]
    mean, cells = _mean_logits(look, question), inputs.shape[1:3]
    targets = _covered(look, masks, cells).to(mean.device)
    drawn = []
    for m, near in enumerate(_covered(look, object_band(masks), cells)):
        if not len(place := near.nonzero()):
            continue
        inside = place[torch.from_numpy(rng.integers(len(place), size=config.pixels))]
        anywhere = torch.from_numpy(rng.integers(cells, size=(config.map_pixels, 2)))
        y, x = torch.cat([inside, anywhere]).unbind(1)
        drawn.append(tuple(maps[m, y, x].cpu() for maps in (inputs, mean, targets)))
    return drawn


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


def _covered(look: Look, masks: np.ndarray, cells: tuple[int, int]) -> Tensor:
    """Whether each one's mask covers at least half of a cell of its window, ``float [M, *cells]``."""
    covered = []
    for n, view in zip(look.index, look.views, strict=True):
        window = torch.from_numpy(np.ascontiguousarray(masks[n][view.window])).float()[None, None]
        covered.append(F.interpolate(window, cells, mode="area")[0, 0])
    return (torch.stack(covered) >= 0.5).float()
