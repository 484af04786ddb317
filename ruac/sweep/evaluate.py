"""One image, several models: prompted once per distinct mask source, then scored pixel by pixel."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ruac.backbone.outputs import Features, upsample
from ruac.data.augment import normalise, square, to_tensor
from ruac.data.sample import Sample
from ruac.metrics import ReliabilitySums, boundary_f, jaccard, object_band
from ruac.model import UncertainSam, predict
from ruac.sweep.protocol import ProtocolConfig, Round, prompt_objects
from ruac.uncertainty import total_uncertainty

REGIONS = ("image", "band")
BLOCK = 8  # objects decoded at a time: memory does not grow with the number of objects in a picture


@dataclass
class Scores:
    """rows: one per (object, model). sums: per (model, score, region)."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[tuple[str, str, str], ReliabilitySums] = field(default_factory=lambda: defaultdict(ReliabilitySums))


@dataclass
class Answer:
    """A model's final answer to N objects of an image, at the picture's resolution; tensors on the model's device.

    masks: ``bool [N, H, W]``, where the upsampled logit is positive. probability: ``[N, H, W]`` of
    the object, the sigmoid of the upsampled calibrated logit, which crosses 1/2 in the same cell of
    the stride-4 grid as the mask's contour, but not always at the same picture pixel. uncertainty:
    per named score, ``[N, H, W]`` in [0, 1]. predicted_iou: ``[N]``. points ``[N, P, 2]`` (x, y) and labels
    ``[N, P]`` are the prompts in picture pixels. j: ``[N, clicks]``, J after every click.
    """

    masks: np.ndarray
    probability: Tensor
    uncertainty: dict[str, Tensor]
    predicted_iou: np.ndarray
    points: np.ndarray
    labels: np.ndarray
    j: np.ndarray


@torch.no_grad()
def answer_image(
    models: dict[str, UncertainSam],
    sample: Sample,
    protocol: ProtocolConfig,
    *,
    replay: tuple[np.ndarray, np.ndarray] | None = None,
    features: dict[int, Features] | None = None,
) -> dict[str, Answer]:
    """Prompt every object of an image, all at once, for every model.

    The image is encoded once per backbone, and models whose masks are SAM 2's own (vanilla and the
    signed posterior) share one run of the clicks, since their masks cannot differ. replay: stored
    points ``[N, P, 2]`` and labels ``[N, P]``. features: of this image by backbone, filled here, for
    a caller that comes back with other objects of it.
    """
    keys = [f"{sample.record.id}/{k}" for k in sample.record.object_ids]
    features = {} if features is None else features
    final: dict[tuple[int, int], Round] = {}
    scores: dict[tuple[int, int], np.ndarray] = {}
    answers = {}
    for name, model in models.items():
        body, source = model.backbone, _mask_source(model)
        if source not in final:
            if id(body) not in features:
                image = normalise(square(to_tensor(sample.image), body.image_size))[None]
                features[id(body)] = body.encode(image.to(next(body.parameters()).device))
            decode = model.decode if source[1] else UncertainSam(body, None).decode
            rounds = prompt_objects(
                decode, features[id(body)], sample.masks, protocol, side=body.image_size, keys=keys, replay=replay
            )
            per_round = []
            for final[source] in rounds:  # pixels are scored after the last one only
                per_round.append(jaccard(final[source].masks, sample.masks))
            scores[source] = np.stack(per_round, axis=1)  # [N, clicks]
        answers[name] = _answer(model, final[source], scores[source], sample.masks.shape[1:])
    return answers


def evaluate_image(
    models: dict[str, UncertainSam],
    sample: Sample,
    protocol: ProtocolConfig,
    scores: Scores,
    *,
    domain: str,
    replay: tuple[np.ndarray, np.ndarray] | None = None,
    regions: tuple[str, ...] = REGIONS,
) -> None:
    """Add the rows and pixel sums of one image to `scores`, `BLOCK` objects at a time."""
    features: dict[int, Features] = {}
    for start in range(0, len(sample.masks), BLOCK):
        block = slice(start, start + BLOCK)
        part = objects_of(sample, block)
        clicks = None if replay is None else (replay[0][block], replay[1][block])
        answers = answer_image(models, part, protocol, replay=clicks, features=features)
        _add(scores, part, answers, domain=domain, clicks=protocol.clicks, regions=regions)


def objects_of(sample: Sample, which: slice) -> Sample:
    """The same image with some of its objects."""
    record = replace(sample.record, object_ids=sample.record.object_ids[which])
    return Sample(record, sample.image, sample.masks[which])


def _add(
    scores: Scores, sample: Sample, answers: dict[str, Answer], *, domain: str, clicks: int, regions: tuple[str, ...]
) -> None:
    device = next(iter(answers.values())).probability.device
    truth = torch.from_numpy(sample.masks).to(device)
    band = torch.from_numpy(object_band(sample.masks)).to(device)
    area, count = sample.masks.sum(axis=(1, 2)), band.sum(dim=(1, 2))
    measured: dict[int, np.ndarray] = {}  # models that share a run share their masks
    for name, answer in answers.items():
        if id(answer.masks) not in measured:
            measured[id(answer.masks)] = boundary_f(answer.masks, sample.masks)
        f = measured[id(answer.masks)]
        masks = torch.from_numpy(answer.masks).to(device)
        for score, uncertainty in answer.uncertainty.items():
            for region in regions:
                scores.sums[name, score, region].update(
                    probability=answer.probability,
                    uncertainty=uncertainty,
                    target=truth,
                    prediction=masks,
                    region=band if region == "band" else None,
                )
        main = next(iter(answer.uncertainty.values()))
        error = (((masks != truth) & band).sum(dim=(1, 2)) / count).tolist()
        doubt = ((main * band).sum(dim=(1, 2)) / count).tolist()
        for index, key in enumerate(sample.record.object_ids):
            scores.rows.append(
                {
                    "domain": domain,
                    "image": sample.record.id,
                    "object": key,
                    "model": name,
                    "j": float(answer.j[index, -1]),
                    "j_by_click": answer.j[index].tolist(),
                    "f": float(f[index]),
                    "predicted_iou": float(answer.predicted_iou[index]),
                    "area": int(area[index]),
                    "clicks": int(clicks),
                    "band_error": error[index],
                    "band_uncertainty": doubt[index],
                    "points": answer.points[index].reshape(-1).tolist(),
                    "labels": answer.labels[index].tolist(),
                }
            )


def _mask_source(model: UncertainSam) -> tuple[int, int]:
    """Models with the same value give the same masks: (backbone, head), head 0 where it changes no mask."""
    own = model.head is not None and model.head.changes_masks
    return id(model.backbone), id(model.head) if own else 0


def _answer(model: UncertainSam, final: Round, j: np.ndarray, size: tuple[int, int]) -> Answer:
    prediction = predict(final.prediction.decoded, model.head)
    logit = upsample(prediction.calibrated_logit(final.choice), size)[:, 0]  # [N, H, W]
    total = total_uncertainty(logit, torch.zeros_like(logit))
    iou = final.iou.float()
    if model.head is None:  # vanilla SAM 2: the entropy of its sigmoid, and the authors' stand-in
        standin = (1 - iou).clamp(0, 1)[:, None, None].expand_as(total)
        uncertainty = {"entropy": total, "iou": standin}
    else:
        own = prediction.posterior.select(final.choice).scores()
        uncertainty = {"total": total} | {name: upsample(score, size)[:, 0] for name, score in own.items()}
    return Answer(final.masks, logit.sigmoid(), uncertainty, iou.cpu().numpy(), final.points, final.labels, j)
