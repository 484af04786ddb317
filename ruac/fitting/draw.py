"""A model's answers to one picture, with the truth at some of its pixels: by the sweep's prompts, or by training's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ruac.backbone import Features
from ruac.backbone.clicks import answer_and_correct
from ruac.backbone.prompts import Prompts, first_prompts
from ruac.base.errors import RuacError
from ruac.calibration import Answers, Evidence
from ruac.data.augment import AugmentConfig
from ruac.data.sample import Sample
from ruac.data.training import TrainingDataConfig
from ruac.evaluation.metrics import object_band
from ruac.evaluation.protocol import ProtocolConfig, prompt_objects
from ruac.evaluation.score import Encodings, blocks, objects_of
from ruac.inference.model import UncertainSam
from ruac.training.attack import AttackConfig

LEARNED = ("learned", "patch", "pgd")  # attacks that would have to be trained, or climb a loss
Stored = dict[str, Tensor]
"""One picture: ``logits [R, N, 1, h, w]`` after R rounds, `Evidence` of the last with ``clicks [R, N]``, and P pixels:
``owner``, ``y``, ``x`` ``[P]`` in a picture of ``size [2]``, their ``truth`` and whether ``near`` an object."""


@dataclass
class PixelConfig:
    """pixels: per picture, its objects weighing alike. band_share: of them, drawn from the object's band; the rest
    from the whole picture, most of which is easy background. objects: at most so many of a picture, a seeded choice.
    """

    pixels: int = 20_000
    band_share: float = 0.5
    objects: int = 8

    def validate(self) -> None:
        if self.pixels < 1 or self.objects < 1:
            raise RuacError(f"pixels {self.pixels}, objects {self.objects}: expected at least 1")
        if not 0 <= self.band_share <= 1:
            raise RuacError(f"band_share: {self.band_share}, expected a share in [0, 1]")


@dataclass
class StressedDrawConfig:
    """Answers as training asks for them, of every quality: crops that show objects in many sizes, random prompts and
    at most `corrections` random clicks after them, any number alike; each picture once as it is and, with
    ``attack.kind`` other than none, once attacked (attacks without parameters only)."""

    corrections: int = 2
    box_share: float = 0.3
    attack: AttackConfig = field(default_factory=lambda: AttackConfig(kind="random"))
    data: TrainingDataConfig = field(default_factory=lambda: TrainingDataConfig(augment=AugmentConfig(crop=0.5)))

    def validate(self) -> None:
        if self.corrections < 0 or not 0 <= self.box_share <= 1:
            raise RuacError("stress: expected corrections of at least 0 and box_share in [0, 1]")
        if self.attack.kind in LEARNED:
            raise RuacError(f"stress.attack.kind: {self.attack.kind}, expected an attack that needs no training")


@torch.no_grad()
def draw_prompted(
    model: UncertainSam, sample: Sample, protocol: ProtocolConfig, config: PixelConfig, seed: int
) -> Stored:
    """Answers after every click of the sweep's own prompts, and pixels of the picture. All on the CPU."""
    rng = np.random.default_rng([seed, *hashlib.sha256(sample.record.id.encode("utf-8", "surrogateescape")).digest()])
    chosen = np.sort(rng.permutation(len(sample.masks))[: config.objects])
    ids = tuple(sample.record.object_ids[k] for k in chosen)
    sample = Sample(replace(sample.record, object_ids=ids), sample.image, sample.masks[chosen])
    encodings, body = Encodings(sample.image), model.backbone
    own = model.changes_masks
    plain = model if own else UncertainSam(body, None)
    parts = []
    for block in blocks(len(sample.masks), body):
        part = objects_of(sample, block)
        keys = [f"{part.record.id}/{k}" for k in part.record.object_ids]
        frame = body.frame(part.masks.shape[1:])
        rounds = prompt_objects(plain.decode, encodings(body), part.masks, protocol, frame=frame, keys=keys)
        parts.append(_rounds(model, rounds, encodings, keys))
    stored = {
        name: torch.cat([part[name] for part in parts], dim=1 if name in ("logits", "clicks") else 0)
        for name in parts[0]
        if name not in ("image", "feature")
    }
    return stored | {name: parts[0][name] for name in ("image", "feature")} | draw_pixels(sample.masks, config, rng)


def _rounds(model: UncertainSam, rounds: Iterator, encodings: Encodings, keys: list[str]) -> Stored:
    logits, clicks, features = [], [], encodings(model.backbone)
    for last in rounds:
        prediction = model.complete(last.prediction.decoded, partial(encodings, model.backbone), last.prompts, keys)
        logits.append(prediction.calibrated_logit(last.choice))
        evidence = Evidence.of(features, last.prompts, prediction.logits, prediction.iou)
        clicks.append(evidence.clicks)
    return _packed(torch.stack(logits), torch.stack(clicks), replace(evidence, choice=last.choice))


@torch.no_grad()
def draw_stressed(
    model: UncertainSam,
    item: dict[str, Tensor],
    attacker: torch.nn.Module | None,
    stress: StressedDrawConfig,
    config: PixelConfig,
    seed: tuple[int, int],
) -> list[Stored]:
    """One or two answers, without and with the attack, to a sample of `TrainingSet`. All on the CPU."""
    device = next(model.parameters()).device
    torch.manual_seed(int(np.random.default_rng(seed).integers(2**62)))
    rng = np.random.default_rng(seed)
    item = {name: value[None].to(device) for name, value in item.items()}
    image, masks, valid = item["image"], item["masks"].float(), item["valid"]
    features = model.encode(image)
    views = [(features, masks[valid] > 0.5)]
    if attacker is not None:
        attacked = attacker(image, features.embedding, masks, valid)
        maps = model.encode(attacked.images)
        embedding, *high_res = attacker.perturb_features([maps.embedding, *maps.high_res])
        views.append((replace(maps, embedding=embedding, high_res=high_res), attacked.masks[valid] > 0.5))
    found = []
    for features, truth in views:
        truth = truth[truth.flatten(1).any(1)]  # a deformation may have moved one out of the picture
        if len(truth):
            stored = _corrected(model, features, truth, stress)
            found.append(stored | draw_pixels(truth.cpu().numpy(), config, rng))
    return found


def _corrected(model: UncertainSam, features: Features, truth: Tensor, stress: StressedDrawConfig) -> Stored:
    gathered = features.gather(torch.zeros(len(truth), dtype=torch.int64, device=truth.device))
    prompts: Prompts = first_prompts(truth, box_share=stress.box_share)
    corrections = int(torch.randint(stress.corrections + 1, ()))
    *_, (prediction, choice, prompts) = answer_and_correct(
        lambda asked: model.decode(gathered, asked), prompts, truth, corrections=corrections
    )
    evidence = Evidence.of(features, prompts, prediction.logits, prediction.iou)
    logits = prediction.calibrated_logit(choice)
    return _packed(logits[None], evidence.clicks[None], replace(evidence, choice=choice))


def _packed(logits: Tensor, clicks: Tensor, evidence: Evidence) -> Stored:
    """Halves where rounding does not matter: a logit of 20 is right to 0.01, a pixel to a grey level."""
    stored = {
        "logits": logits.float(),
        "clicks": clicks.to(torch.uint8),
        "boxed": evidence.boxed,
        "tokens": evidence.tokens.half(),
        "iou": evidence.iou,
        "choice": evidence.choice,
        "image": evidence.image[:1].half(),
        "feature": evidence.feature[:1],
    }
    return {name: value.cpu().contiguous() for name, value in stored.items()}


def draw_pixels(masks: np.ndarray, config: PixelConfig, rng: np.random.Generator) -> Stored:
    """Places and truth of random pixels of ``bool [N, H, W]``: of each object's band, and of anywhere."""
    share = -(-config.pixels // len(masks))
    band = round(config.band_share * share)
    columns = []
    for n, (mask, near) in enumerate(zip(masks, object_band(masks), strict=True)):
        inside = np.flatnonzero(near)
        for where, count in ((inside, band), (mask.size, share - band)):
            size = len(inside) if where is inside else mask.size
            place = rng.choice(where, min(count, size), replace=False)
            y, x = np.divmod(place, mask.shape[1])
            columns.append((np.full(len(place), n), y, x, mask[y, x], np.full(len(place), where is inside)))
    owner, y, x, truth, near = (torch.from_numpy(np.concatenate(column)) for column in zip(*columns, strict=True))
    places = {"owner": owner.to(torch.int16), "y": y.to(torch.int32), "x": x.to(torch.int32)}
    return places | {"truth": truth, "near": near, "size": torch.tensor(masks.shape[1:])}


def as_answers(stored: Stored, *, round: int = -1) -> Answers:
    """What was stored, as calibrators take it: the answers after a round, by default the last.

    Tokens and predicted IoU are of the last round, whichever is asked for.
    """
    logits = stored["logits"][round]
    n = len(logits)
    cells = (
        ((stored[axis].float() + 0.5) * (side / size) - 0.5).clamp(min=0)  # as `upsample` places them
        for axis, side, size in zip("yx", logits.shape[2:], stored["size"].tolist(), strict=True)
    )
    evidence = Evidence(
        image=stored["image"].float().expand(n, -1, -1, -1),
        feature=stored["feature"].expand(n, -1),
        clicks=stored["clicks"][round].long(),
        boxed=stored["boxed"],
        tokens=stored["tokens"].float(),
        iou=stored["iou"],
        choice=stored["choice"],
    )
    place = torch.stack([stored["owner"].float(), *cells], dim=1)
    return Answers(logits, place, stored["truth"].float(), stored["near"], evidence)
