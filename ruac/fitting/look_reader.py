"""The reader of looks, fitted to a frozen model on source pixels, clean and under stress (method, sec. 7)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
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
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import question_of
from ruac.inference.export import export_model, exported_backbone, load_exported, origin
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import Look, LooksConfig, Question, ask_look
from ruac.uncertainty.look_reader import LookReader, LookReaderConfig, reread

CELLS = 64  # largest side of the maps that are kept; what reads half a window needs no more, and memory is bounded
BLOCK = 32  # objects at a time where all are gone through


@dataclass
class LookReaderFitConfig:
    """export: a folder of ruac export whose model gets looks and a reader; or backbone: SAM 2 without a head. source,
    split: training images, never a domain of the sweep.

    looks: what follows the first answer; one look, which the reader reads beside it. unasked: whether the export
    looks again by itself, or only where ``looks=`` asks for it. hidden: width of the reader's layers. images:
    drawn, each as it is and, with stressed, once more under stress. objects: most of an image. protocol: how they
    are prompted, as in the sweep; half of the pictures get all its clicks, the others any number up to that.
    Objects weigh alike; band: share of an object's weight that lies on its band, the rest on all of its window.
    context: width of what the reader knows of surroundings, 0 for none. held_out: share of the images that is not
    fitted to, and says when to stop. steps, batch (of objects, mirrored at random), rate: of AdamW, cosine.
    """

    source: str = "???"
    out: str = "runs/look_reader"
    export: str | None = None
    backbone: str | None = None
    split: str | None = None
    orientation: str = "seen"
    looks: LooksConfig = field(default_factory=LooksConfig)
    hidden: int = 48
    context: int = 24
    unasked: bool = True
    images: int = 350
    stressed: bool = True
    stress: StressConfig = field(default_factory=StressConfig)
    objects: int = 6
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    band: float = 0.8
    held_out: float = 0.2
    steps: int = 600
    batch: int = 16
    rate: float = 2e-3
    seed: int = 0
    cpu: bool = False

    def validate(self) -> None:
        if (self.export is None) == (self.backbone is None):
            raise RuacError("expected exactly one of export= and backbone=")
        LookReaderConfig(hidden=self.hidden, context=self.context).validate()
        if len(self.looks.looks) != 1:
            raise RuacError(f"looks.looks: {self.looks.looks}, expected one look for the reader to read")
        check_orientation(self.orientation)
        for name in ("images", "objects", "steps", "batch"):
            if getattr(self, name) < 1:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 1")
        if not 0 <= self.band <= 1 or not 0 < self.held_out < 1 or self.rate <= 0:
            raise RuacError("expected band from 0 to 1, held_out between 0 and 1 and rate above 0")
        if self.protocol.next_click == "replay":
            raise RuacError("protocol.next_click: replay, expected own_error: there are no clicks to repeat")


@dataclass(frozen=True)
class LookMaps:
    """Windows of M objects that were looked at twice, on a grid of at most `CELLS` a side. inputs: of the reader,
    ``float16 [M, C, h, w]``. logits: of the mean of both looks, ``float16 [M, h, w]``. truth, band: ``bool [M, h, w]``.
    image: number of its picture among those drawn, ``[M]``."""

    inputs: Tensor
    logits: Tensor
    truth: Tensor
    band: Tensor
    image: Tensor

    def some(self, which: Tensor) -> LookMaps:
        """Those of an index or a mask ``[M]``."""
        return LookMaps(*(getattr(self, each.name)[which] for each in fields(self)))

    def flipped(self, *sides: int) -> LookMaps:
        """Mirrored along some of the sides -1 and -2; nothing that is read has a direction."""
        maps = (self.inputs, self.logits, self.truth, self.band)
        return LookMaps(*(each.flip(sides) for each in maps), self.image) if sides else self

    def loss(self, reader: LookReader, band: float) -> Tensor:
        """Mean over objects of the negative log-likelihood in nats; band: share of each one's weight on its band."""
        logits = reread(self.logits.float()[:, None], reader.read(self.inputs.float()))[:, 0]
        values = nll(logits.reshape(-1), self.truth.float().reshape(-1)).view_as(logits)
        near = self.band.float()
        near = near / near.sum((1, 2), keepdim=True).clamp(min=1)
        weight = band * near + (1 - band) / near[0].numel()
        return ((values * weight).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-9)).mean()


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
    maps = draw_look_maps(model, dataset, config)
    torch.manual_seed(config.seed)
    reader = LookReader(LookReaderConfig(hidden=config.hidden, context=config.context, look=config.looks.looks[0]))
    fitted, held = _split(maps, config.held_out)
    reader.standardise(fitted.inputs)
    losses = [_losses(reader, config.band, fitted, held)]
    steps = fit_reader(reader, fitted, held, config)
    losses.append(_losses(reader, config.band, fitted, held))
    model.looks, model.reader = config.looks if config.unasked else None, reader.eval().to(device)
    record = {
        "look_reader_fit": asdict(config),
        "source_sha256": dataset_hash(dataset),
        "objects": len(maps.logits),
        "steps_kept": steps,
        "nll": {
            name: dict(zip(("before", "after"), pair, strict=True))
            for name, pair in zip(("fitted", "held_out"), zip(*losses, strict=True), strict=True)
        },
        "environment": environment(),
        **origin(config.export),
    }
    return export_model(model, spec, config.out, with_backbone=whole, record=record)


def fit_reader(reader: LookReader, fitted: LookMaps, held: LookMaps, config: LookReaderFitConfig) -> int:
    """Fit to `fitted`, mirrored at random, as long as that is good for `held`; returns the steps kept."""
    generator = torch.Generator().manual_seed(config.seed)

    def loss(_: int) -> Tensor:
        some = fitted.some(torch.randint(len(fitted.truth), (config.batch,), generator=generator))
        turned = [side for side in (-1, -2) if torch.rand((), generator=generator) < 0.5]
        return some.flipped(*turned).loss(reader, config.band)

    def held_out() -> float:
        return _losses(reader, config.band, held)[0]

    return descend(reader, loss, steps=config.steps, rate=config.rate, held_out=held_out)


def _split(maps: LookMaps, share: float) -> tuple[LookMaps, LookMaps]:
    """The objects to fit to and those held out, by picture; the last ones drawn, in random order as they are.

    Raises `RuacError` where one of the two would be empty.
    """
    count = int(maps.image.max()) + 1
    held = maps.image >= count - max(1, round(share * count))
    if held.all():
        raise RuacError(f"{count} images: too few to hold out a share of {share:g}; expected at least 2")
    return maps.some(~held), maps.some(held)


@torch.no_grad()
def _losses(reader: LookReader, band: float, *some: LookMaps) -> list[float]:
    means = []
    for maps in some:
        blocks = torch.arange(len(maps.truth)).split(BLOCK)
        means.append(sum(float(maps.some(at).loss(reader, band)) * len(at) for at in blocks) / len(maps.truth))
    return means


@torch.no_grad()
def draw_look_maps(model: UncertainSam, dataset: MaskDataset, config: LookReaderFitConfig) -> LookMaps:
    """Windows of objects that were looked at twice, in clean and stressed pictures; on the CPU.

    Raises `RuacError` where no object at all was looked at again.
    """
    rng = np.random.default_rng(config.seed)
    drawn: list[LookMaps] = []
    images = 0
    picks = rng.permutation(len(dataset))[: config.images]
    for number in track(picks, description="source images"):
        sample = dataset[int(number)]
        masks = sample.masks[rng.permutation(len(sample.masks))[: config.objects]]
        views = [(sample.image, masks)]
        if config.stressed:
            views.append(stress(sample.image, masks, config.stress, rng))
        found = [maps for view in views if (maps := look_maps(model, *view, config, rng, images)) is not None]
        drawn += found
        images += bool(found)
    if not drawn:
        raise RuacError(f"{dataset.name}: no object was looked at again; all of them fill their pictures")
    return joined(drawn)


def joined(parts: list[LookMaps]) -> LookMaps:
    """All objects of some maps of one grid."""
    return LookMaps(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(LookMaps)))


@torch.no_grad()
def look_maps(
    model: UncertainSam,
    image: np.ndarray,
    masks: np.ndarray,
    config: LookReaderFitConfig,
    rng: np.random.Generator,
    number: int,
) -> LookMaps | None:
    """Ask for the objects of one picture twice; None where none of them was looked at again. number: the picture's."""
    protocol = config.protocol
    if rng.random() < 0.5:
        protocol = replace(protocol, clicks=int(rng.integers(1, protocol.clicks + 1)))
    keys = [f"{rng.integers(2**62)}" for _ in masks]  # of random first clicks
    question = question_of(model, image, masks, protocol, keys)
    look = ask_look(model, config.looks, question, config.looks.looks[0])
    if look is None:
        return None
    inputs, mean = look.reader_inputs(question).cpu(), _mean_logits(look, question).cpu()
    cells = tuple(min(CELLS, side) for side in mean.shape[1:])
    covered = [_covered(look, each, cells) for each in (masks, object_band(masks))]
    inputs = F.adaptive_avg_pool2d(inputs, cells).half()
    mean = F.adaptive_avg_pool2d(mean[:, None], cells)[:, 0].clamp(-1e4, 1e4).half()
    return LookMaps(inputs, mean, *covered, torch.full((len(mean),), number))


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
    """Whether each one's mask covers at least half of a cell of its window, ``bool [M, *cells]``."""
    covered = []
    for n, view in zip(look.index, look.views, strict=True):
        window = torch.from_numpy(np.ascontiguousarray(masks[n][view.window])).float()[None, None]
        covered.append(F.interpolate(window, cells, mode="area")[0, 0])
    return torch.stack(covered) >= 0.5
