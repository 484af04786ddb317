"""The local temperature, fitted to a frozen model on source pixels: the last step before an export (ours).

Training sees a dozen objects a step, and what the scale reads differs between objects more than within them. With
everything else frozen its inputs can be drawn once, from thousands of objects, and fitted in seconds.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import PartialState
from rich.progress import track
from torch import Tensor

from ruac.backbone import BackboneConfig, Features, backbone_config, load_backbone
from ruac.backbone.clicks import answer_and_correct
from ruac.backbone.prompts import first_prompts
from ruac.base.errors import RuacError
from ruac.base.provenance import environment
from ruac.data.augment import AugmentConfig
from ruac.data.open import open_dataset
from ruac.data.training import TrainingDataConfig, TrainingSet
from ruac.evaluation.sweep.claims import dataset_hash
from ruac.inference.export import export_model, exported_backbone, load_exported
from ruac.inference.model import UncertainSam
from ruac.training.attack import AttackConfig, build_attacker
from ruac.training.engine import STREAM_LENGTH
from ruac.training.losses.band import loss_band
from ruac.training.losses.segmentation import soft_targets
from ruac.uncertainty import build_head, head_config, probit_logit
from ruac.uncertainty.local_temperature import LocalTemperature, answer_inputs

LEARNED = ("learned", "patch", "pgd")  # attacks that would have to be trained, or climb a loss


@dataclass
class LocalTemperatureFitConfig:
    """export: a folder of ruac export, whose head gets a local temperature if it has none; or backbone: SAM 2 without
    a head, which gets one of ``posterior: local_temperature``. source, split: training images, never a domain of the
    sweep.

    images: drawn, each clean and, with ``attack.kind`` other than none, attacked as well (attacks without
    parameters only). corrections: at most so many random clicks after the first prompt, any number alike.
    pixels: drawn of each object's band, so that objects weigh alike; map_pixels: drawn of its whole map, without
    which the background far from any object would be left to chance. data: crops show objects in many sizes.
    steps, batch, rate: of AdamW, cosine."""

    source: str = "???"
    out: str = "runs/local_temperature"
    export: str | None = None
    backbone: str | None = None
    split: str | None = None
    images: int = 600
    corrections: int = 2
    box_share: float = 0.3
    pixels: int = 120
    map_pixels: int = 60
    steps: int = 1500
    batch: int = 4096
    rate: float = 5e-3
    hidden: int = 32
    seed: int = 0
    cpu: bool = False
    attack: AttackConfig = field(default_factory=lambda: AttackConfig(kind="random"))
    data: TrainingDataConfig = field(default_factory=lambda: TrainingDataConfig(augment=AugmentConfig(crop=0.5)))

    def validate(self) -> None:
        if (self.export is None) == (self.backbone is None):
            raise RuacError("expected exactly one of export= and backbone=")
        for name in ("images", "pixels", "steps", "batch", "hidden"):
            if getattr(self, name) < 1:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 1")
        if min(self.corrections, self.map_pixels) < 0 or not 0 <= self.box_share <= 1 or self.rate <= 0:
            raise RuacError("expected corrections and map_pixels of at least 0, box_share in [0, 1] and rate above 0")
        if self.attack.kind in LEARNED:
            raise RuacError(f"attack.kind: {self.attack.kind}, expected an attack that needs no training")


@dataclass(frozen=True)
class Pixels:
    """inputs: of the local temperature, ``[P, C]``. mean, variance: of the logit without it. target: in [0, 1]."""

    inputs: Tensor
    mean: Tensor
    variance: Tensor
    target: Tensor


def run_local_temperature_fit(config: LocalTemperatureFitConfig) -> Path:
    """Fit and export to ``config.out``. Raises `RuacError` for unusable input."""
    device = PartialState(cpu=config.cpu).device
    model, spec, whole = _model(config)
    model.to(device)
    dataset = open_dataset(config.source, split=config.split, orientation=config.data.orientation)
    data = TrainingSet(dataset, config.data, side=model.image_size, seed=config.seed, length=STREAM_LENGTH)
    pixels = draw_answer_pixels(model, data, config)
    before, after = fit_local_temperature(model.head.local_temperature, pixels, config)
    record = {
        "context_fit": asdict(config),
        "source_sha256": dataset_hash(dataset),
        "pixels": len(pixels.mean),
        "nll": {"before": before, "after": after},
        "environment": environment(),
    }
    return export_model(model, spec, config.out, with_backbone=whole, record=record)


@torch.no_grad()
def draw_answer_pixels(model: UncertainSam, data: TrainingSet, config: LocalTemperatureFitConfig) -> Pixels:
    """Pixels of objects' bands and maps under random prompts, of clean and attacked images; on the CPU."""
    device = next(model.parameters()).device
    attacker = None
    if config.attack.kind != "none":
        attacker = build_attacker(config.attack, feature_dim=model.backbone.token_dim).to(device)
    drawn: list[tuple[Tensor, ...]] = []
    torch.manual_seed(config.seed)
    for number in track(range(config.images), description="source images"):
        item = {name: value[None].to(device) for name, value in data[number].items()}
        image, masks, valid = item["image"], item["masks"].float(), item["valid"]
        features = model.encode(image)
        _draw(model, features, masks[valid] > 0.5, config, drawn)
        if attacker is not None:
            attacked = attacker(image, features.embedding, masks, valid)
            maps = model.encode(attacked.images)
            embedding, *high_res = attacker.perturb_features([maps.embedding, *maps.high_res])
            _draw(
                model, replace(maps, embedding=embedding, high_res=high_res), attacked.masks[valid] > 0.5, config, drawn
            )
    return Pixels(*(torch.cat(column) for column in zip(*drawn, strict=True)))


def fit_local_temperature(
    network: LocalTemperature, pixels: Pixels, config: LocalTemperatureFitConfig
) -> tuple[float, float]:
    """Minimise the binary cross-entropy of the analytic probability; returns its mean before and after, in nats.

    Training leaves the network on the CPU and in place.
    """
    network.cpu().requires_grad_(True)
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(network.parameters(), config.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config.steps))
    before = _loss(network, pixels, slice(None)).item()
    for _ in range(config.steps):
        picked = torch.randint(len(pixels.mean), (config.batch,), generator=generator)
        optimizer.zero_grad()
        _loss(network, pixels, picked).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    network.requires_grad_(False)
    return before, _loss(network, pixels, slice(None)).item()


def _loss(network: LocalTemperature, pixels: Pixels, picked: Tensor | slice) -> Tensor:
    inputs = pixels.inputs[picked].T[None, :, :, None]  # [1, C, P, 1], a map of one column
    with torch.set_grad_enabled(not isinstance(picked, slice)):
        scale = network.log_scale(inputs).reshape(-1).exp()
        logit = probit_logit(scale * pixels.mean[picked], scale.square() * pixels.variance[picked])
        return F.binary_cross_entropy_with_logits(logit, pixels.target[picked])


def _rate(step: int, steps: int) -> float:
    """Warm-up of 20 steps, then a cosine down to a fiftieth."""
    return min(1.0, (step + 1) / 20) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)


def _draw(
    model: UncertainSam, features: Features, masks: Tensor, config: LocalTemperatureFitConfig, drawn: list
) -> None:
    """Prompt the objects of one image (``bool [N, S, S]``) and add pixels of their bands."""
    masks = masks[masks.flatten(1).any(1)]  # a deformation may have moved one out of the picture
    if not len(masks):
        return
    side, rows = masks.shape[-1], torch.arange(len(masks), device=masks.device)
    features, prompts = features.gather(torch.zeros_like(rows)), first_prompts(masks, box_share=config.box_share)
    corrections = int(torch.randint(config.corrections + 1, ()))
    *_, (prediction, choice, _) = answer_and_correct(
        lambda asked: model.decode(features, asked), prompts, masks, corrections=corrections
    )
    posterior = prediction.posterior.select(choice)
    mean, variance = (x[:, 0] for x in replace(posterior, local_scale=None).calibrated())
    inputs = answer_inputs(prediction.logits.float(), prediction.iou.float(), choice).movedim(1, -1)  # [N, h, w, C]
    targets = (soft_targets(masks, side // 4) >= 0.5).float()  # as masks are judged
    for n, band in enumerate(loss_band(targets)):
        place = band.nonzero()
        if len(place):
            inside = place[torch.randint(len(place), (config.pixels,), device=place.device)]
            anywhere = torch.randint(side // 4, (config.map_pixels, 2), device=place.device)
            y, x = torch.cat([inside, anywhere]).unbind(1)
            drawn.append(tuple(maps[n, y, x].cpu() for maps in (inputs, mean, variance, targets)))


def _model(config: LocalTemperatureFitConfig) -> tuple[UncertainSam, BackboneConfig, bool]:
    """The model with a head that has a local temperature, its backbone's config, and whether to export that as well."""
    old, whole = None, False
    if config.backbone is not None:
        backbone, spec = load_backbone(config.backbone), backbone_config(config.backbone)
        wanted = head_config("local_temperature", local_hidden=config.hidden)
    else:
        loaded, (spec, whole) = load_exported(config.export), exported_backbone(config.export)
        backbone, old = loaded.backbone, loaded.head
        posterior = "none" if old is None else old.config.posterior
        if posterior not in ("signed", "nonnegative", "local_temperature"):
            raise RuacError(
                f"{config.export}: posterior {posterior}, expected signed, nonnegative or local_temperature"
            )
        more = {} if posterior == "local_temperature" else {"local_temperature": True}
        wanted = replace(old.config, local_hidden=config.hidden, **more)
    torch.manual_seed(config.seed)
    head = build_head(wanted, token_dim=backbone.token_dim, channels=backbone.channels)
    if old is not None:
        kept = {name: value for name, value in old.state_dict().items() if not name.startswith("local_temperature.")}
        head.load_state_dict(kept, strict=False)
    return UncertainSam(backbone, head.requires_grad_(False)).eval(), spec, whole
