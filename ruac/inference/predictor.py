"""Prompt an image, get masks that say what they do not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ruac.backbone import BackboneConfig, Features
from ruac.backbone.load import ROOT
from ruac.backbone.outputs import as_prompt, upsample
from ruac.backbone.prompts import BOX_FIRST, BOX_SECOND, Prompts
from ruac.base.errors import RuacError
from ruac.conformal.bounds import MaskBounds, Thresholds
from ruac.data.augment import prepare
from ruac.data.sample import read_image, to_rgb
from ruac.inference.bounds import read_bounds
from ruac.inference.export import load_exported
from ruac.inference.look_mean import look_again
from ruac.inference.model import Prediction, UncertainSam
from ruac.inference.second_look import LooksConfig, Question
from ruac.inference.unccorr import UncCorr

DEFAULT = ROOT / "checkpoints" / "ruac_nano"


@dataclass(frozen=True)
class PredictedMasks:
    """M masks of one prompted object, best score first. Arrays are float32 unless said otherwise.

    masks: ``bool [M, H, W]``, where the upsampled logit is positive; with the signed posterior SAM
    2's own, bit for bit. Less what a correction drops, if asked for. scores: predicted IoU ``[M]``.
    logits: ``[M, h, w]`` at stride 4, to be given back as `mask_input`. probability: of the object,
    ``[M, H, W]``, the sigmoid of the upsampled calibrated logit. Calibration keeps the sign of a logit
    but not its slope to the next, so that the probability crosses 1/2 in the same cell of the stride-4
    grid as the mask's contour, but not always at the same picture pixel. uncertainty: total,
    ``[M, H, W]`` in [0, 1] (0 certain, 1 coin toss). aleatoric and epistemic: its parts, None unless
    asked for or without a head. inner, outer: ``bool [M, H, W]``, None unless asked for by an alpha: of the
    first mask, the share of the object outside `outer`, and of `inner` outside the object, is at most alpha
    in expectation, for pictures and prompts like those it was fitted on (`MaskBounds` says what that means).
    """

    masks: np.ndarray
    scores: np.ndarray
    logits: np.ndarray
    probability: np.ndarray
    uncertainty: np.ndarray
    aleatoric: np.ndarray | None = None
    epistemic: np.ndarray | None = None
    inner: np.ndarray | None = None
    outer: np.ndarray | None = None


class Predictor:
    """`set_image`, then `predict` as often as you like; nothing is trained, nothing is random.

    model: an exported folder (default: the embedded nano), or an `UncertainSam`. backbone: where the
    backbone of a head-only export lies. device: default is CUDA, then MPS, then CPU. conformal: file of
    ruac conformal, or a folder with one; by default that of the exported folder.
    """

    def __init__(
        self,
        model: str | Path | UncertainSam = DEFAULT,
        *,
        backbone: str | BackboneConfig | None = None,
        device: str | torch.device | None = None,
        conformal: str | Path | None = None,
    ):
        self.device = torch.device(device or _best_device())
        loaded = model if isinstance(model, UncertainSam) else load_exported(model, backbone=backbone)
        self.model = loaded.to(self.device).eval()
        self._bounds_at = conformal or (None if isinstance(model, UncertainSam) else model)
        self._bounds: dict[str, MaskBounds] = {}  # by the looks they are for
        self._features: Features | None = None
        self._image: np.ndarray | None = None
        self._size = (0, 0)  # of the picture, (H, W)

    @torch.no_grad()
    def set_image(self, image: np.ndarray | Image.Image | str | Path) -> None:
        """Encode a picture: ``uint8 [H, W, 3]`` RGB, a PIL image, or a path; as a person sees it, EXIF applied.

        Raises `RuacError` for an unreadable file or an array of another shape or type.
        """
        self._features = self._image = None  # a picture that cannot be read must not be answered for by the one before
        if isinstance(image, (str, Path)):
            image = read_image(Path(image).expanduser())
        elif isinstance(image, Image.Image):
            image = to_rgb(ImageOps.exif_transpose(image), "image")
        if not isinstance(image, np.ndarray):
            raise RuacError(f"image: {type(image).__name__}, expected an array, a PIL image or a path")
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise RuacError(f"image: {image.dtype} {image.shape}, expected uint8 [H, W, 3] in RGB")
        prepared = prepare(image, self.model.image_size)
        self._features = self.model.encode(prepared.to(self.device))
        self._size, self._image = image.shape[:2], image

    @torch.no_grad()
    def predict(
        self,
        *,
        points: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        box: np.ndarray | None = None,
        mask_input: np.ndarray | None = None,
        multimask: bool = True,
        decomposed: bool = False,
        correct: bool = False,
        looks: LooksConfig | Sequence[str] | None = None,
        alpha: float | None = None,
    ) -> PredictedMasks:
        """Answer one prompt on the image set before.

        points: ``[P, 2]`` (x, y) in picture pixels, with labels ``[P]``, 1 object and 0 background.
        box: ``[4]`` x0, y0, x1, y1. mask_input: ``[h, w]`` logits of an earlier answer. multimask:
        three candidates instead of one mask. decomposed: also aleatoric and epistemic maps. correct:
        drop uncertain components of the masks (`unccorr.corrected`); all else stays as it is. looks: look at
        the object again (``["zoom"]``, see `LooksConfig`; default: as the model was made, or not); one mask comes back,
        that of the best score, with aleatoric and epistemic maps, and its logits are the first look's. alpha: also
        inner and outer masks that are wrong by at most this share in expectation.

        Raises `RuacError` without an image, without a prompt, for arrays of another shape, or for an alpha without
        conformal bounds of this model that allow it.
        """
        if self._features is None:
            raise RuacError("predict: no image; call set_image first")
        prompts = self._prompts(points, labels, box, mask_input)
        looks = _looks_config(self.model.looks if looks is None else looks)
        thresholds = None if alpha is None else self._conformal(looks).at(alpha)
        prediction = self.model.decode(self._features, prompts)
        tokens = torch.arange(1, 4) if multimask else torch.arange(1)
        tokens = tokens[prediction.iou[0, tokens].argsort(descending=True).cpu()]
        if looks is not None:
            return _bounded(self._look_again(looks, prompts, prediction, tokens[:1], correct), thresholds)
        logits = prediction.logits[:, tokens]
        # One by one, and before the maps: a picture of 100 megapixels has 0.4 GB in each of them.
        masks = np.stack([_array(upsample(logits[:, [i]], self._size)[0, 0] > 0) for i in range(len(tokens))])
        maps = prediction.maps(tokens[None].to(self.device), self._size, parts=decomposed)
        uncertainty = _array(maps.total[0])
        masks = self.model.filtered(masks, uncertainty)
        if correct:
            masks = UncCorr()(masks, uncertainty)
        answer = PredictedMasks(
            masks=masks,
            scores=_array(prediction.iou[0, tokens]),
            logits=_array(as_prompt(logits[0])),
            probability=_array(maps.probability[0]),
            uncertainty=uncertainty,
            **{name: _array(part[0]) for name, part in maps.parts.items()},
        )
        return _bounded(answer, thresholds)

    def _look_again(
        self, looks: LooksConfig, prompts: Prompts, prediction: Prediction, token: Tensor, correct: bool
    ) -> PredictedMasks:
        logits, choice = prediction.logits[:, token], token.to(self.device)
        masks = _array(upsample(logits, self._size)[0] > 0)
        question = Question(self._image, prompts, prediction, choice, masks)
        looked = look_again(self.model, looks, question, parts=True)
        maps, uncertainty = looked.maps, _array(looked.maps.total[0])
        masks = self.model.filtered(looked.masks, uncertainty)
        return PredictedMasks(
            masks=UncCorr()(masks, uncertainty) if correct else masks,
            scores=_array(looked.iou),
            logits=_array(as_prompt(logits[0])),
            probability=_array(maps.probability[0]),
            uncertainty=uncertainty,
            **{name: _array(part[0]) for name, part in maps.parts.items()},
        )

    def _conformal(self, looks: LooksConfig | None) -> MaskBounds:
        """The bounds of this model, looking as often; its hash is taken once."""
        if self._bounds_at is None:
            raise RuacError("alpha: no conformal bounds; expected conformal=, or an export with such a file")
        if repr(looks) not in self._bounds:
            self._bounds[repr(looks)] = read_bounds(self._bounds_at, self.model.looking(looks))
        return self._bounds[repr(looks)]

    def _prompts(
        self,
        points: np.ndarray | None,
        labels: np.ndarray | None,
        box: np.ndarray | None,
        mask_input: np.ndarray | None,
    ) -> Prompts:
        coordinates, kinds = np.zeros((0, 2)), np.zeros(0)
        if box is not None:
            corners = _numbers(box, "box")
            if corners.shape != (4,) or (corners[2:] <= corners[:2]).any():
                raise RuacError(f"box: {corners.tolist()}, expected x0 y0 x1 y1 with x0 < x1 and y0 < y1")
            coordinates, kinds = corners.reshape(2, 2), np.array([BOX_FIRST, BOX_SECOND])
        if points is not None or labels is not None:
            points, labels = _numbers(points, "points"), _numbers(labels, "labels")
            if points.ndim != 2 or points.shape[1] != 2 or labels.shape != (len(points),):
                raise RuacError(f"points {points.shape} and labels {labels.shape}: expected [P, 2] and [P]")
            if not np.isin(labels, (0, 1)).all():
                raise RuacError(f"labels: {labels.tolist()}, expected 1 (object) or 0 (background)")
            coordinates, kinds = np.concatenate([coordinates, points]), np.concatenate([kinds, labels])
        if not len(coordinates):
            raise RuacError("predict: no prompt; expected points with labels, or a box")
        height, width = self._size
        if (coordinates < 0).any() or (coordinates > (width, height)).any():
            raise RuacError(f"prompt {coordinates.tolist()}: outside the {width}x{height} picture")
        side = self.model.image_size
        mask_logits = None
        if mask_input is not None:
            previous = _numbers(mask_input, "mask_input")
            if previous.shape != (side // 4, side // 4):
                raise RuacError(f"mask_input: {previous.shape}, expected [{side // 4}, {side // 4}] logits")
            mask_logits = torch.tensor(previous, dtype=torch.float32, device=self.device)[None, None]
        scaled = torch.tensor(coordinates * (side / width, side / height), dtype=torch.float32, device=self.device)
        return Prompts(scaled[None], torch.tensor(kinds, dtype=torch.int64, device=self.device)[None], mask_logits)


def _bounded(answer: PredictedMasks, thresholds: Thresholds | None) -> PredictedMasks:
    if thresholds is None:
        return answer
    inner, outer = thresholds(answer.probability)
    return replace(answer, inner=inner, outer=outer)


def _looks_config(looks: LooksConfig | Sequence[str] | None) -> LooksConfig | None:
    if looks is None or isinstance(looks, LooksConfig):
        config = looks
    else:
        config = LooksConfig(looks=[looks] if isinstance(looks, str) else list(looks))
    if config is not None:
        config.validate()
    return config


def _numbers(values: np.ndarray | None, name: str) -> np.ndarray:
    try:
        array = np.asarray([] if values is None else values, dtype=float)
    except (TypeError, ValueError) as error:
        raise RuacError(f"{name}: {values!r}, expected an array of numbers") from error
    if not np.isfinite(array).all():
        raise RuacError(f"{name}: expected finite numbers")
    return array


def _array(tensor: Tensor) -> np.ndarray:
    return (tensor if tensor.dtype == torch.bool else tensor.float()).cpu().numpy()


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
