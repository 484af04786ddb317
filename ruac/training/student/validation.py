"""A student on held-out pictures: mIoU and reliability at the pictures' own size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.data.augment import prepare
from ruac.data.classes import ClassFolder
from ruac.evaluation.metrics.semantic import SemanticSums
from ruac.training.student.models import Segmenter


@torch.no_grad()
def evaluate(
    model: Segmenter,
    dataset: ClassFolder,
    places: list[int],
    *,
    side: int,
    device: torch.device | str = "cpu",
    process: int = 0,
    processes: int = 1,
) -> SemanticSums:
    """Sums over the pictures at `places`, shared out over processes; the same on every process."""
    training = model.training
    model.eval()
    sums = SemanticSums(len(dataset.names))
    for place in places[process::processes]:
        labels = torch.from_numpy(dataset.labels(place))
        sums.update(probability(model, prepare(dataset.image(place), side).to(device), labels.shape).cpu(), labels)
    model.train(training)
    if processes > 1:
        sums.all_reduce(device)
    return sums


def probability(model: Segmenter, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Probability of every class, ``[K, H, W]``, of a prepared picture ``[1, 3, S, S]``; logits are enlarged."""
    return F.interpolate(model(image), tuple(size), mode="bilinear", align_corners=False)[0].softmax(0)
