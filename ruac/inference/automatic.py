"""All masks of a picture: a grid of clicks, the reliable answers kept, each object once."""

from __future__ import annotations

import json
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

GRID = 256  # overlaps are measured on at most this many cells a side
VALUES = 1 << 24  # most values of one map of a batch: large pictures are answered in smaller batches


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


class AutomaticMasks:
    """Masks for a whole picture, as ``SAM2AutomaticMaskGenerator`` makes them, chosen by how reliable they are.

    Takes the place of SAM 2's thresholds of predicted IoU and stability: both are judged by one number, the fitted
    reliability of a mask, or without a fit the smaller of predicted and expected IoU. There are no crops.
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
        self.predictor.set_image(image)
        height, width = self.predictor.picture_size
        points = grid_points(self.config.points_per_side) * (width, height)
        batch = min(self.config.points_per_batch, max(1, VALUES // (3 * height * width)))
        found, maps = [], []
        for start in range(0, len(points), batch):
            some = points[start : start + batch]
            answer = self.predictor.predict(some[:, None], np.ones((len(some), 1)))
            for entry, probability in self._kept(answer, some):
                found.append(entry)
                maps.append(probability)
        if not found:
            return []
        reliability = np.array([entry["reliability"] for entry in found])
        kept = suppress(np.stack(maps), reliability, self.config.max_overlap)
        return [_unpacked(found[index]) for index in kept]

    def _kept(self, answer: PredictedMasks, points: np.ndarray):
        """Entry, with its mask as run lengths, and pooled probability map of each mask that is reliable enough."""
        size = answer.masks.shape[-2:]
        masks, probability, uncertainty = (
            array.reshape(-1, *size) for array in (answer.masks, answer.probability, answer.uncertainty)
        )
        numbers = (answer.scores, answer.expected_iou, answer.trust, answer.tokens)
        scores, expected, reliability, tokens = (array.reshape(-1) for array in numbers)
        area = masks.sum(axis=(1, 2))
        for index in np.flatnonzero((reliability >= self.config.min_reliability) & (area >= self.config.min_area)):
            entry = {
                "segmentation": rle.encode(np.asfortranarray(masks[index], np.uint8)),
                "area": int(area[index]),
                "predicted_iou": float(scores[index]),
                "expected_iou": float(expected[index]),
                "reliability": float(reliability[index]),
                "mean_uncertainty": float(uncertainty[index][masks[index]].mean()),
                "point_coords": [points[index * len(points) // len(masks)].tolist()],
                "token": int(tokens[index]),
            }
            yield entry, _pooled(probability[index])


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
    flat = maps.reshape(len(maps), -1)
    total = flat.sum(axis=1, dtype=np.float64)
    remaining = np.argsort(-reliability, kind="stable")
    kept = []
    while len(remaining):
        best, remaining = remaining[0], remaining[1:]
        kept.append(int(best))
        # min + max = sum, so one pass over the pixels gives both.
        shared = np.array([np.minimum(flat[best], flat[other]).sum(dtype=np.float64) for other in remaining])
        union = total[best] + total[remaining] - shared
        remaining = remaining[shared <= max_overlap * union]
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


def _unpacked(entry: dict[str, Any]) -> dict[str, Any]:
    code = entry["segmentation"]
    box = [float(value) for value in rle.toBbox(code)]
    return entry | {"segmentation": rle.decode(code).astype(bool), "bbox": box}
