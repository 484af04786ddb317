"""One image, several models: prompted once per distinct mask source, then scored pixel by pixel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ruac.backbone import Backbone, Features
from ruac.conformal.bounds import Thresholds
from ruac.data.augment import prepare
from ruac.data.sample import Sample
from ruac.evaluation.metrics import ReliabilitySums, boundary_f, jaccard, object_band, update_sums
from ruac.evaluation.metrics.band_counts import Band, band_counts
from ruac.evaluation.metrics.bounds import bound_scores
from ruac.evaluation.protocol import ProtocolConfig, Round, prompt_objects
from ruac.evaluation.results.schema import REGIONS
from ruac.inference.flips import FLIPS
from ruac.inference.look_mean import look_again
from ruac.inference.model import Prediction, UncertainSam
from ruac.inference.reliability import Reader, mask_features
from ruac.inference.second_look import Question, Shared

BLOCK = 8  # most objects decoded at a time: memory does not grow with the number of objects in a picture
PIXELS = 1 << 27  # most pixels of all of them, at about 30 bytes each: fewer objects of pictures above 16 megapixels
MAPPED = 1 << 25  # bytes from which on glibc gets every tensor from the system anew, which takes longer than to fill it


@dataclass
class Scores:
    """rows: one per (object, model), as `ROW`. sums: per (model, score, region)."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[tuple[str, str, str], ReliabilitySums] = field(default_factory=lambda: defaultdict(ReliabilitySums))


@dataclass
class Answer:
    """A model's final answer to N objects of an image, at the picture's resolution; tensors on the model's device.

    masks: ``bool [N, H, W]``, where the upsampled logit is positive, less what filters drop.
    probability: ``[N, H, W]`` of the object, the sigmoid of the upsampled calibrated logit, which
    crosses 1/2 in the same cell of the stride-4 grid as the mask's contour, but not always at the same
    picture pixel; no correction changes it. uncertainty: per named score, ``[N, H, W]`` in [0, 1].
    predicted_iou: ``[N]``. points ``[N, P, 2]`` (x, y) and labels
    ``[N, P]`` are the prompts in picture pixels. j: ``[N, clicks]``, J after every click. thresholds: of
    inner and outer masks, where the model has conformal bounds. reliability: ``[N]``, IoU to expect of each mask before
    any filter, where the model has a reader of it. kept: further looks left the masks as they were, and may contradict
    them.
    """

    masks: np.ndarray
    probability: Tensor
    uncertainty: dict[str, Tensor]
    predicted_iou: np.ndarray
    points: np.ndarray
    labels: np.ndarray
    j: np.ndarray
    thresholds: Thresholds | None = None
    reliability: np.ndarray | None = None
    kept: bool = False


class Encodings:
    """Features of one image, computed once per backbone and flip of the image, when they are first asked for."""

    def __init__(self, image: np.ndarray):
        self._image = image
        self._known: dict[tuple[int, str], Features] = {}

    def __call__(self, body: Backbone, flip: str = "") -> Features:
        """flip: a key of `FLIPS`, or none."""
        key = id(body), flip
        if key not in self._known:
            pixels = prepare(self._image, body.frame(self._image.shape[:2]))
            pixels = pixels.flip(FLIPS[flip]) if flip else pixels
            self._known[key] = body.encode(pixels.to(next(body.parameters()).device))
        return self._known[key]


@torch.no_grad()
def question_of(
    model: UncertainSam, image: np.ndarray, masks: np.ndarray, protocol: ProtocolConfig, keys: list[str]
) -> Question:
    """What a model answers to the last prompt on each object of a picture, before any further look.

    masks: the truth that is prompted for, ``bool [N, H, W]``. keys: a stable id per object.
    """
    encoded, frame = Encodings(image)(model.backbone), model.backbone.frame(image.shape[:2])
    *_, last = prompt_objects(model.decode, encoded, masks, protocol, frame=frame, keys=keys)
    return Question(image, last.prompts, last.prediction, last.choice, last.masks)


@torch.no_grad()
def answer_image(
    models: dict[str, UncertainSam],
    sample: Sample,
    protocol: ProtocolConfig,
    *,
    replay: tuple[np.ndarray, np.ndarray] | None = None,
    encodings: Encodings | None = None,
) -> dict[str, Answer]:
    """Prompt every object of an image, all at once, for every model.

    The image is encoded once per backbone and flip, and models whose masks are SAM 2's own (vanilla, the
    signed posterior, a temperature, ensembles) share one run of the clicks, since their masks cannot
    differ. Further passes of an ensemble, further looks and filters of masks come after the last click; what the
    backbone says of a further look is shared, too. replay: stored points ``[N, P, 2]`` and labels ``[N, P]``.
    encodings: of this image, for a caller that comes back with other objects of it.
    """
    keys = [f"{sample.record.id}/{k}" for k in sample.record.object_ids]
    encodings = Encodings(sample.image) if encodings is None else encodings
    final: dict[tuple[int, int], Round] = {}
    scores: dict[tuple[int, int], np.ndarray] = {}
    answers, shared = {}, {}
    for name, model in models.items():
        body, source = model.backbone, _mask_source(model)
        if source not in final:
            decode = model.decode if source[1] else UncertainSam(body, None).decode
            rounds = prompt_objects(
                decode,
                encodings(body),
                sample.masks,
                protocol,
                frame=body.frame(sample.masks.shape[1:]),
                keys=keys,
                replay=replay,
            )
            per_round = []
            for final[source] in rounds:  # pixels are scored after the last one only
                per_round.append(jaccard(final[source].masks, sample.masks))
            scores[source] = np.stack(per_round, axis=1)  # [N, clicks]
        last = final[source]
        prediction = model.complete(last.prediction.decoded, partial(encodings, body), last.prompts, keys)
        if model.looks:
            answers[name] = _looked(model, prediction, last, scores[source], sample, shared)
        else:
            answers[name] = _answer(prediction, last, scores[source], sample.masks.shape[1:])
        answers[name] = replace(answers[name], thresholds=model.thresholds)
        if model.reliability is not None:
            answers[name] = _judged(answers[name], model.reliability, last.masks if model.looks else None)
        if model.filters:
            answers[name] = _filter(model, answers[name], sample.masks)
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
    """Add the rows and pixel sums of one image to `scores`, some objects at a time, see `blocks`."""
    encodings = Encodings(sample.image)
    backbones = (model.backbone for model in models.values())
    for block in blocks(len(sample.masks), *backbones, pixels=sample.masks[0].size):
        part = objects_of(sample, block)
        clicks = None if replay is None else (replay[0][block], replay[1][block])
        answers = answer_image(models, part, protocol, replay=clicks, encodings=encodings)
        _add(scores, part, answers, domain=domain, clicks=protocol.clicks, regions=regions)


def blocks(count: int, *backbones: Backbone, pixels: int = 1) -> Iterator[slice]:
    """`count` objects in turn, `BLOCK` at a time; fewer of a picture with so many `pixels` that maps of all would have
    more than `PIXELS`, and on a CPU fewer for large models, so that the decoder's largest tensors, float32 and one per
    object, stay below `MAPPED`: 3 for an official model at 1024 px."""
    size = max(1, min(BLOCK, PIXELS // pixels))
    for backbone in backbones:
        if next(backbone.parameters()).device.type == "cpu":
            size = min(size, max(1, (MAPPED - 1) // _bytes(backbone)))
    for start in range(0, count, size):
        yield slice(start, start + size)


def _bytes(backbone: Backbone) -> int:
    """Of the decoder's pixel tokens for one object, float32."""
    return 4 * backbone.channels * (backbone.image_size // backbone.mask_stride) ** 2


def objects_of(sample: Sample, which: slice) -> Sample:
    """The same image with some of its objects."""
    record = replace(sample.record, object_ids=sample.record.object_ids[which])
    return Sample(record, sample.image, sample.masks[which])


def _add(
    scores: Scores, sample: Sample, answers: dict[str, Answer], *, domain: str, clicks: int, regions: tuple[str, ...]
) -> None:
    device = next(iter(answers.values())).probability.device
    truth = torch.from_numpy(sample.masks).to(device)
    near = object_band(sample.masks)
    band, inside = torch.from_numpy(near).to(device), Band.of(near, device)
    area = sample.masks.sum(axis=(1, 2))
    measured: dict[int, np.ndarray] = {}  # models that share a run share their masks
    for name, answer in answers.items():
        if id(answer.masks) not in measured:
            measured[id(answer.masks)] = boundary_f(answer.masks, sample.masks)
        f = measured[id(answer.masks)]
        masks = torch.from_numpy(answer.masks).to(device)
        pairs = [(score, region) for score in answer.uncertainty for region in regions]
        update_sums(
            {pair: scores.sums[(name, *pair)] for pair in pairs},
            probability=answer.probability,
            uncertainty=answer.uncertainty,
            target=truth,
            prediction=masks,
            regions={region: band if region == "band" else None for region in regions},
        )
        said = answer.probability
        if answer.kept:  # no confidence in a mask that the probability contradicts, as its uncertainty says
            said = torch.where((said > 0.5) == masks, said, 0.5)
        counts = band_counts(said, masks != truth, inside)  # [N, correct or wrong, bins]
        error = counts[:, 1].sum(1) / counts.sum((1, 2))
        doubt = inside.mean(next(iter(answer.uncertainty.values())))
        bounds = {}
        if answer.thresholds is not None:
            bounds = bound_scores(*answer.thresholds(answer.probability), truth)
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
                    "band_error": float(error[index]),
                    "band_uncertainty": float(doubt[index]),
                    "band_counts": counts[index].reshape(-1).tolist(),
                    "points": answer.points[index].reshape(-1).tolist(),
                    "labels": answer.labels[index].tolist(),
                }
                | {key: float(values[index]) for key, values in bounds.items()}
                | ({} if answer.reliability is None else {"reliability": float(answer.reliability[index])})
            )


def _mask_source(model: UncertainSam) -> tuple[int, int]:
    """Models with the same value give the same masks: (backbone, head), head 0 where it changes no mask."""
    return id(model.backbone), id(model.head) if model.changes_masks else 0


def _answer(prediction: Prediction, final: Round, j: np.ndarray, size: tuple[int, int]) -> Answer:
    maps = prediction.maps(final.choice[:, None], size)
    total = maps.total[:, 0]  # [N, H, W]
    iou = final.iou.float()
    if prediction.posterior is None:  # vanilla SAM 2: the entropy of its sigmoid, and the authors' stand-in
        standin = (1 - iou).clamp(0, 1)[:, None, None].expand_as(total)
        uncertainty = {"entropy": total, "iou": standin}
    else:
        uncertainty = {"total": total} | {name: score[:, 0] for name, score in maps.own.items()}
    return Answer(final.masks, maps.probability[:, 0], uncertainty, iou.cpu().numpy(), final.points, final.labels, j)


def _looked(
    model: UncertainSam, prediction: Prediction, final: Round, j: np.ndarray, sample: Sample, shared: Shared
) -> Answer:
    """The answer after further looks, which J after the last click is of."""
    question = Question(sample.image, final.prompts, prediction, final.choice, final.masks)
    looked = look_again(model, model.looks, question, shared=shared)
    own = {name: score[:, 0] for name, score in looked.maps.own.items()}
    uncertainty = {"total": looked.maps.total[:, 0]} | own
    if looked.masks is not final.masks:
        j = j.copy()
        j[:, -1] = jaccard(looked.masks, sample.masks)
    iou, kept = looked.iou.cpu().numpy(), model.looks.keep_masks
    maps = looked.maps.probability[:, 0]
    return Answer(looked.masks, maps, uncertainty, iou, final.points, final.labels, j, kept=kept)


def _judged(answer: Answer, reader: Reader, first: np.ndarray | None) -> Answer:
    """first: masks before further looks, which say whether those agree."""
    features = mask_features(answer.masks, answer.probability.float().cpu().numpy(), answer.predicted_iou, first)
    return replace(answer, reliability=reader.read(features))


def _filter(model: UncertainSam, answer: Answer, truth: np.ndarray) -> Answer:
    """The same answer with filtered masks, which J after the last click is of."""
    masks = model.filtered(answer.masks, next(iter(answer.uncertainty.values())).cpu().numpy())
    j = answer.j.copy()
    j[:, -1] = jaccard(masks, truth)
    return replace(answer, masks=masks, j=j)
