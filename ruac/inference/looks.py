"""SAM 2 asked several times, the usual uncertainty without training: with jittered prompts, or a flipped image."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ruac.backbone import Backbone, Decoded, Features
from ruac.backbone.outputs import best_candidate, of_token
from ruac.backbone.prompts import BOX_FIRST, BOX_SECOND, Prompts
from ruac.base.errors import RuacError
from ruac.calibration import Calibrator
from ruac.inference.model import Prediction, UncertainSam
from ruac.uncertainty import logit_entropy

FLIPS = {"horizontal": (-1,), "vertical": (-2,), "both": (-2, -1)}
"""Axes of ``[..., H, W]`` that are turned around."""


@dataclass
class EnsembleConfig:
    """Further passes beside the plain one; all of them weigh alike.

    jitters: decoder passes with moved clicks and box corners. sigma: standard deviation of a move in x and in y, as a
    share of the object's size, which is the square root of the area of SAM 2's best candidate. flips: keys of `FLIPS`,
    a pass of encoder and decoder each. seed: of the moves.
    """

    jitters: int = 0
    sigma: float = 0.05
    flips: list[str] = field(default_factory=list)
    seed: int = 0

    @property
    def posterior(self) -> str:
        return "ensemble"

    def validate(self) -> None:
        if self.jitters < 0 or not 0 <= self.sigma < math.inf:
            raise RuacError(f"ensemble: jitters {self.jitters}, sigma {self.sigma}, expected at least 0")
        if unknown := [flip for flip in self.flips if flip not in FLIPS]:
            raise RuacError(f"ensemble.flips: {unknown[0]!r}, expected {' or '.join(FLIPS)}")
        if len(set(self.flips)) < len(self.flips):
            raise RuacError(f"ensemble.flips: {self.flips}, expected each at most once")
        if not self.jitters and not self.flips:
            raise RuacError("ensemble: expected jitters=, flips= or both")


@dataclass(frozen=True, eq=False, kw_only=True)
class EnsemblePosterior:
    """mean: ``[N, K, h, w]``, SAM 2's plain logits. members: ``[M, N, K, h, w]``, those of all passes."""

    mean: Tensor
    members: Tensor

    @property
    def variance(self) -> Tensor:
        """Variance ``[N, K, h, w]`` of the members' logits; they are all there is, so not the unbiased one."""
        return self.members.var(dim=0, correction=0)

    def calibrated(self) -> tuple[Tensor, Tensor]:
        """Normal logits with the members' variance, whose analytic probability is the mean of the members'."""
        variance = self.variance
        return self._mean_logit() * torch.sqrt(1 + math.pi / 8 * variance), variance

    def select(self, index: Tensor) -> EnsemblePosterior:
        """The posterior of token ``index[n]`` of object n (int64 ``[N]``): K = 1."""
        rows = torch.arange(len(index), device=index.device)
        return EnsemblePosterior(mean=self.mean[rows, index][:, None], members=self.members[:, rows, index][:, :, None])

    def sample(self, generator: Generator | None = None) -> Tensor:
        """The logits of one member."""
        device = self.members.device if generator is None else generator.device
        index = torch.randint(len(self.members), (1,), generator=generator, device=device)
        return self.members[index.to(self.members.device)][0]

    def calibrated_sample(self, generator: Generator | None = None) -> Tensor:
        """A draw as it is: nothing scales it."""
        return self.sample(generator)

    def kl(self) -> Tensor:
        """0: nothing is trained."""
        return self.mean.new_zeros(())

    def scores(self) -> dict[str, Tensor]:
        """Mutual information: entropy of the mean probability minus the members' mean entropy, in [0, 1]."""
        nats = logit_entropy(self._mean_logit()) - logit_entropy(self.members).mean(dim=0)
        return {"mutual_information": (nats / math.log(2)).clamp(0, 1)}

    def _mean_logit(self) -> Tensor:
        """The logit of the mean probability, from the logarithms of both probabilities: saturated ones keep order."""
        return F.logsigmoid(self.members).logsumexp(dim=0) - F.logsigmoid(-self.members).logsumexp(dim=0)


class EnsembleHead(nn.Module):
    """Puts the answers to one question together."""

    changes_masks = False

    def __init__(self, config: EnsembleConfig):
        super().__init__()
        self.config = config

    def forward(self, decoded: Decoded, others: list[Tensor] | None = None) -> EnsemblePosterior:
        """others: ``[N, 4, h, w]`` logits of the passes beside `decoded`."""
        if others is None:
            raise RuacError("an ensemble cannot be had from a single decoder pass; expected the sweep or a Predictor")
        plain = decoded.logits.float()
        return EnsemblePosterior(mean=plain, members=torch.stack([plain, *others]))


@dataclass
class FlippedFeatures(Features):
    """flipped: features of the image's flipped copies as well, by key of `FLIPS`."""

    flipped: dict[str, Features] = field(default_factory=dict)

    @classmethod
    def of(cls, plain: Features, flipped: dict[str, Features]) -> FlippedFeatures:
        return cls(plain.embedding, plain.high_res, plain.image, plain.frame, flipped=flipped)

    def gather(self, image_index: Tensor) -> FlippedFeatures:
        flipped = {flip: features.gather(image_index) for flip, features in self.flipped.items()}
        return FlippedFeatures.of(super().gather(image_index), flipped)


class EnsembleSam(UncertainSam):
    """Masks, scores and logits are those of the plain pass; probability and uncertainty come from all passes."""

    head: EnsembleHead

    def __init__(self, backbone: Backbone, config: EnsembleConfig, *, calibrator: Calibrator | None = None):
        super().__init__(backbone, EnsembleHead(config), calibrator=calibrator)

    def encode(self, images: Tensor) -> FlippedFeatures:
        """``[B, 3, S, S]`` normalised images and their flipped copies to features."""
        plain = self.backbone.encode(images)
        flipped = {flip: self.backbone.encode(images.flip(FLIPS[flip])) for flip in self.head.config.flips}
        return FlippedFeatures.of(plain, flipped)

    def decode(self, features: FlippedFeatures, prompts: Prompts) -> Prediction:
        """Answer N prompts; jitter is the same for all of them and whenever it is asked for."""
        return self.ask_again(self.backbone.decode(features, prompts), features, prompts, [""] * len(prompts.points))

    def complete(
        self, decoded: Decoded, encode: Callable[[str], Features], prompts: Prompts, keys: list[str]
    ) -> Prediction:
        """The further passes, after the last click only."""
        plain, flipped = encode(""), {flip: encode(flip) for flip in self.head.config.flips}
        every_object = torch.zeros(len(keys), dtype=torch.int64, device=plain.embedding.device)
        features = FlippedFeatures.of(plain, flipped).gather(every_object)
        return self.ask_again(decoded, features, prompts, keys)

    def ask_again(self, decoded: Decoded, features: FlippedFeatures, prompts: Prompts, keys: list[str]) -> Prediction:
        """The further passes after the plain one, pass by pass: memory grows by their logits alone.

        decoded: the plain answer to `prompts`. keys: a stable id per object, all that its jitter depends on beside
        its size.
        """
        config, others = self.head.config, []
        for flip in config.flips:
            turned = self.backbone.decode(features.flipped[flip], flip_prompts(prompts, flip, self._frame(features)))
            others.append(turned.logits.float().flip(FLIPS[flip]))
        if config.jitters:
            sizes = self.backbone.mask_stride * _size(decoded)  # model pixels
            moves = config.sigma * sizes[:, None, None] * _noise(prompts, keys, config)  # [M, N, P, 2]
            edges = torch.tensor(self._frame(features)[::-1], device=moves.device)  # (x, y)
            for move in moves:
                points = torch.minimum((prompts.points + move).clamp(min=0), edges)
                others.append(self.backbone.decode(features, replace(prompts, points=points)).logits.float())
        posterior = self.head(decoded, others)
        return self.calibrated(Prediction(posterior.mean, decoded.iou, decoded, posterior), features, prompts)

    def _frame(self, features: Features) -> tuple[int, int]:
        return features.frame or (self.image_size, self.image_size)


def flip_prompts(prompts: Prompts, flip: str, frame: tuple[int, int]) -> Prompts:
    """The same prompts on the flipped image of `frame` (h, w) model pixels; box corners change sides, so that the
    first stays first.

    A point stands for the middle of its pixel, as in SAM 2's prompt encoder: x becomes ``w - 1 - x``.
    """
    points = prompts.points.clone()
    first, second = prompts.labels == BOX_FIRST, prompts.labels == BOX_SECOND
    for axis in FLIPS[flip]:
        coordinate = points[..., -1 - axis]  # axis -1 of an image is x, which comes first in a point
        coordinate.copy_(frame[axis] - 1 - coordinate)
        coordinate[first], coordinate[second] = coordinate[second], coordinate[first]
    mask_logits = None if prompts.mask_logits is None else prompts.mask_logits.flip(FLIPS[flip])
    return Prompts(points, prompts.labels, mask_logits)


def _size(decoded: Decoded) -> Tensor:
    """Square root of the area of the candidate of highest predicted IoU, in cells ``[N]``; at least one."""
    best = of_token(decoded.logits, best_candidate(decoded.iou))[:, 0]  # [N, h, w]
    return (best > 0).sum(dim=(1, 2)).clamp(min=1).sqrt()


def _noise(prompts: Prompts, keys: list[str], config: EnsembleConfig) -> Tensor:
    """Standard normal numbers ``[M, N, P, 2]``, each object's from the hash of its key."""
    shape = (config.jitters, *prompts.points.shape[1:])
    digests = [hashlib.sha256(f"{config.seed}/{key}".encode()).digest() for key in keys]
    draws = [np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(shape) for digest in digests]
    return torch.tensor(np.stack(draws, axis=1), dtype=torch.float32, device=prompts.points.device)
