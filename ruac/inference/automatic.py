"""All masks of a picture: a grid of clicks, the reliable answers kept, each object once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as rle

from ruac.base.errors import RuacError
from ruac.base.files import write_text
from ruac.inference.predicted import PredictedMasks
from ruac.inference.predictor import Predictor
from ruac.inference.second_look import LooksConfig, looks_config

GRID = 128  # overlaps are measured on at most this many cells a side
VALUES = 1 << 24  # most values of one map of a batch: large pictures are answered in smaller batches
BLOCK = 64  # maps that are compared at once
SLACK = 0.03
"""By how much a mask's reliability at the decoder's resolution may fall short of the least one: judged again later."""


@dataclass
class AutomaticConfig:
    """points_per_side: of the grid of clicks. points_per_batch: asked at once. min_reliability: of a mask that is kept.
    max_overlap: soft IoU from which the less reliable of two masks is a duplicate. min_area: pixels."""

    points_per_side: int = 32
    points_per_batch: int = 64
    min_reliability: float = 0.7
    max_overlap: float = 0.7
    min_area: int = 16

    def validate(self) -> None:
        for name in ("points_per_side", "points_per_batch", "min_area"):
            if getattr(self, name) < 1:
                raise RuacError(f"automatic.{name}: {getattr(self, name)}, expected at least 1")
        for name in ("min_reliability", "max_overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise RuacError(f"automatic.{name}: {getattr(self, name)}, expected a share in [0, 1]")


@dataclass(frozen=True)
class Candidate:
    """A mask worth making: the click (x, y) that finds it, which of SAM 2's masks it is, how reliable it looked."""

    point: tuple[float, float]
    token: int
    reliability: float


class AutomaticMasks:
    """Masks for a whole picture, as ``SAM2AutomaticMaskGenerator`` makes them, chosen by how reliable they are.

    Takes the place of SAM 2's thresholds of predicted IoU and stability: both are judged by one number, the fitted
    reliability of a mask, or without a fit the smaller of predicted and expected IoU. There are no crops.

    Candidates are judged and duplicates dropped at the resolution of the decoder; only what is left is made at that of
    the picture, and judged once more.
    """

    def __init__(self, predictor: Predictor, config: AutomaticConfig | None = None):
        self.predictor = predictor
        self.config = AutomaticConfig() if config is None else config
        self.config.validate()

    def generate(self, image: Any) -> list[dict[str, Any]]:
        """Masks of a picture in any form that `Predictor.set_image` takes, the most reliable first.

        Keys as in SAM 2: ``segmentation`` (``bool [H, W]``), ``area``, ``bbox`` (x, y, width, height),
        ``predicted_iou``, ``point_coords``; and ours: ``expected_iou``, ``reliability`` and ``mean_uncertainty``;
        ``token``: which of SAM 2's masks the answer to that click is.
        """
        entries = [self._entry(candidate, answer) for candidate, answer in self.answers(image)]
        return sorted(entries, key=lambda entry: -entry["reliability"])

    def answers(
        self, image: Any, *, looks: LooksConfig | Sequence[str] | None = None, alpha: float | None = None
    ) -> Iterator[tuple[Candidate, PredictedMasks]]:
        """Each object once, with the predictor's answer of one mask ``[1, H, W]``; candidates by falling reliability.

        looks, alpha: as in `Predictor.predict`; they see the candidates that are left. With looks the mask of the best
        score is the only candidate of a click, since looks return no other. Until the last answer the predictor must
        keep this picture.
        """
        self.predictor.set_image(image)
        height, width = self.predictor.picture_size
        looking = looks_config(self.predictor.model.looks if looks is None else looks)
        candidates = self._candidates(1 if looking else None)
        batch = max(1, VALUES // (3 * height * width))
        for start in range(0, len(candidates), batch):
            some = candidates[start : start + batch]
            points = np.array([[candidate.point] for candidate in some])
            whole = self.predictor.predict(points, np.ones((len(some), 1)), looks=looking, alpha=alpha)
            for candidate, answer in zip(some, whole.each(), strict=True):
                place = int(np.flatnonzero(answer.tokens == candidate.token)[0])
                answer = answer.part(slice(place, place + 1))
                if answer.trust[0] >= self.config.min_reliability and answer.masks.sum() >= self.config.min_area:
                    yield candidate, answer

    def _candidates(self, most: int | None) -> list[Candidate]:
        """What is worth making of the picture that is set, the most reliable first. most: per click, the best ones."""
        height, width = self.predictor.picture_size
        points = grid_points(self.config.points_per_side) * (width, height)
        found, maps = [], []
        for start in range(0, len(points), self.config.points_per_batch):
            some = points[start : start + self.config.points_per_batch]
            answers = self.predictor.sketch(some[:, None], np.ones((len(some), 1))).each()
            for point, answer in zip(some.tolist(), answers, strict=True):
                reliability = answer.trust[:most]
                for index in np.flatnonzero(reliability >= self.config.min_reliability - SLACK):
                    if answer.masks[index].any():
                        found.append(Candidate(tuple(point), int(answer.tokens[index]), float(reliability[index])))
                        maps.append(_pooled(answer.probability[index]))
        if not found:
            return []
        reliability = np.array([candidate.reliability for candidate in found])
        return [found[index] for index in suppress(np.stack(maps), reliability, self.config.max_overlap)]

    @staticmethod
    def _entry(candidate: Candidate, answer: PredictedMasks) -> dict[str, Any]:
        mask = answer.masks[0]
        box = rle.toBbox(rle.encode(np.asfortranarray(mask, np.uint8)))
        return {
            "segmentation": mask,
            "area": int(mask.sum()),
            "bbox": [float(value) for value in box],
            "predicted_iou": float(answer.scores[0]),
            "expected_iou": float(answer.expected_iou[0]),
            "reliability": float(answer.trust[0]),
            "mean_uncertainty": float(answer.uncertainty[0][mask].mean()),
            "point_coords": [list(candidate.point)],
            "token": candidate.token,
        }


def grid_points(side: int) -> np.ndarray:
    """Middles of ``side x side`` cells, as shares of the picture's sides ``[side^2, 2]`` (x, y), row by row."""
    middles = (np.arange(side) + 0.5) / side
    return np.stack([np.tile(middles, side), np.repeat(middles, side)], axis=1)


def suppress(maps: np.ndarray, reliability: np.ndarray, max_overlap: float) -> list[int]:
    """Indices of the masks that stay, the most reliable first: each object once.

    Non-maximum suppression that knows of uncertainty: masks are ranked by reliability, and their overlap is the soft
    IoU of their probability maps ``[N, h, w]``, sum of minima over sum of maxima. Where both doubt, a difference
    between two masks counts for little; where both are sure, in full.
    """
    flat = torch.from_numpy(maps.reshape(len(maps), -1))
    total = flat.sum(dim=1, dtype=torch.float64).numpy()
    remaining = np.argsort(-reliability, kind="stable")
    kept = []
    while len(remaining):
        best, remaining = remaining[0], remaining[1:]
        kept.append(int(best))
        # The union is at least the larger sum, so that maps of very different sums need no look at their pixels.
        smaller, larger = np.minimum(total[best], total[remaining]), np.maximum(total[best], total[remaining])
        close = np.flatnonzero(smaller > max_overlap * larger)
        near = remaining[close]
        shared = np.zeros(len(near))
        for start in range(0, len(near), BLOCK):
            block = flat[near[start : start + BLOCK]]
            shared[start : start + BLOCK] = torch.minimum(flat[best], block).sum(dim=1, dtype=torch.float64)
        union = total[best] + total[near] - shared  # min + max = sum
        remaining = np.delete(remaining, close[shared > max_overlap * union])
    return kept


def save_coco(path: str | Path, masks: list[dict[str, Any]], *, file_name: str, size: tuple[int, int]) -> Path:
    """Write the masks of one picture as a COCO file: run lengths, and the reliability numbers beside them.

    file_name: of the picture, size: its (H, W). ``score`` is the reliability, as tools that read results expect.
    """
    annotations = []
    for number, mask in enumerate(masks, start=1):
        code = rle.encode(np.asfortranarray(mask["segmentation"], np.uint8))
        entry = {name: value for name, value in mask.items() if name != "segmentation"}
        entry |= {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "score": mask["reliability"]}
        entry["segmentation"] = {"size": [int(side) for side in size], "counts": code["counts"].decode("ascii")}
        annotations.append(entry)
    content = {
        "images": [{"id": 1, "file_name": file_name, "height": int(size[0]), "width": int(size[1])}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }
    write_text(path, json.dumps(content) + "\n")
    return Path(path)


def _pooled(probability: np.ndarray) -> np.ndarray:
    size = tuple(min(side, GRID) for side in probability.shape)
    return F.adaptive_avg_pool2d(torch.from_numpy(probability)[None], size)[0].numpy()
