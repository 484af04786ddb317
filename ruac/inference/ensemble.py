"""SAM 2 asked several times, the usual uncertainty without training: with jittered prompts, or a flipped image."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ruac.backbone import Backbone, Decoded, Features
from ruac.backbone.outputs import best_candidate, of_token
from ruac.backbone.prompts import Prompts
from ruac.base.errors import RuacError
from ruac.inference.flips import FLIPS, flip_prompts
from ruac.uncertainty import logit_entropy


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


class Ensemble(nn.Module):
    """Puts the answers to one question together: in the place of a head, but it needs the picture as well.

    Masks, scores and logits are those of the plain pass; probability and uncertainty come from all passes.
    """

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

    def encode(self, backbone: Backbone, images: Tensor) -> FlippedFeatures:
        """``[B, 3, S, S]`` normalised images and their flipped copies to features."""
        flipped = {flip: backbone.encode(images.flip(FLIPS[flip])) for flip in self.config.flips}
        return FlippedFeatures.of(backbone.encode(images), flipped)

    def gather(self, encode: Callable[[str], Features], objects: int) -> FlippedFeatures:
        """The features of one picture, once per object. encode: them as it is (``""``) or under a key of `FLIPS`."""
        plain, flipped = encode(""), {flip: encode(flip) for flip in self.config.flips}
        every_object = torch.zeros(objects, dtype=torch.int64, device=plain.embedding.device)
        return FlippedFeatures.of(plain, flipped).gather(every_object)

    def ask_again(
        self,
        backbone: Backbone,
        decoded: Decoded,
        features: FlippedFeatures,
        prompts: Prompts,
        keys: Sequence[str] | None = None,
    ) -> EnsemblePosterior:
        """The further passes after the plain one, pass by pass: memory grows by their logits alone.

        decoded: the plain answer to `prompts`. keys: a stable id per object, all that its jitter depends on beside
        its size; without them it is the same for all objects and whenever it is asked for.
        """
        config, others = self.config, []
        frame = features.frame or (backbone.image_size, backbone.image_size)
        for flip in config.flips:
            turned = backbone.decode(features.flipped[flip], flip_prompts(prompts, flip, frame))
            others.append(turned.logits.float().flip(FLIPS[flip]))
        if config.jitters:
            sizes = backbone.mask_stride * _size(decoded)  # model pixels
            keys = [""] * len(sizes) if keys is None else keys
            moves = config.sigma * sizes[:, None, None] * _noise(prompts, keys, config)  # [M, N, P, 2]
            edges = torch.tensor(frame[::-1], device=moves.device)  # (x, y)
            for move in moves:
                points = torch.minimum((prompts.points + move).clamp(min=0), edges)
                others.append(backbone.decode(features, replace(prompts, points=points)).logits.float())
        return self(decoded, others)


def _size(decoded: Decoded) -> Tensor:
    """Square root of the area of the candidate of highest predicted IoU, in cells ``[N]``; at least one."""
    best = of_token(decoded.logits, best_candidate(decoded.iou))[:, 0]  # [N, h, w]
    return (best > 0).sum(dim=(1, 2)).clamp(min=1).sqrt()


def _noise(prompts: Prompts, keys: Sequence[str], config: EnsembleConfig) -> Tensor:
    """Standard normal numbers ``[M, N, P, 2]``, each object's from the hash of its key."""
    shape = (config.jitters, *prompts.points.shape[1:])
    digests = [hashlib.sha256(f"{config.seed}/{key}".encode()).digest() for key in keys]
    draws = [np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(shape) for digest in digests]
    return torch.tensor(np.stack(draws, axis=1), dtype=torch.float32, device=prompts.points.device)
