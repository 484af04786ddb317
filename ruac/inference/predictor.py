"""Prompt an image, get masks that say what they do not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ruac.backbone import Backbone, BackboneConfig, Features
from ruac.backbone.load import ROOT
from ruac.backbone.outputs import as_prompt, of_tokens, upsample
from ruac.backbone.prompts import Prompts
from ruac.base.errors import RuacError
from ruac.conformal.bounds import MaskBounds, Thresholds
from ruac.inference.answer_options import AnswerOptions
from ruac.inference.bounds import read_bounds
from ruac.inference.embeddings import EncodedPicture, Encoder, load_embeddings, save_embeddings
from ruac.inference.export import load_exported
from ruac.inference.hub import BOUNDS, Pretrained
from ruac.inference.look_mean import look_again
from ruac.inference.model import Prediction, UncertainSam
from ruac.inference.picture import picture_of
from ruac.inference.predicted import PredictedBatch, PredictedMasks
from ruac.inference.reliability import NAME, load_reliability, mask_features, reliability_identity
from ruac.inference.second_look import LooksConfig, Question, looks_config
from ruac.inference.temperature_file import backbone_identity
from ruac.inference.unccorr import UncCorr
from ruac.inference.user_prompts import UserPrompts

DEFAULT = ROOT / "checkpoints" / "ruac_nano_scale"
DECODED = 32  # most objects decoded at a time


class Predictor(Pretrained):
    """`set_image`, then `predict` as often as you like; nothing is trained, nothing is random.

    Takes the place of ``SAM2ImagePredictor``: the same methods, argument names and order, and its answers unpack as
    that one's do. `from_pretrained`, `save_pretrained` and `push_to_hub` are in `hub`.

    model: an exported folder (default: the embedded one), an `UncertainSam`, or a SAM 2 of the sam2 package, which
    answers without a head. backbone: where the backbone of a head-only export lies. device: default is that of a model
    that is given, else CUDA, then MPS, then CPU. conformal, reliability: files of ``ruac conformal`` and ``ruac
    fit-reliability``, or folders with one; default: the exported folder's. remember: number of pictures whose features
    are kept, so that coming back to one does not encode it again.
    """

    def __init__(
        self,
        model: str | Path | nn.Module = DEFAULT,
        *,
        backbone: str | BackboneConfig | None = None,
        device: str | torch.device | None = None,
        conformal: str | Path | None = None,
        reliability: str | Path | None = None,
        remember: int = 4,
    ):
        folder = self._folder = None if isinstance(model, nn.Module) else Path(model)
        if reliability is None and folder and (folder / NAME).is_file():
            reliability = folder / NAME
        if isinstance(model, UncertainSam):
            loaded = model
        elif isinstance(model, nn.Module):
            device = device or next(model.parameters()).device
            loaded = UncertainSam(Backbone(model, name=type(model).__name__), None)
        else:
            loaded = load_exported(model, backbone=backbone)
        self.device = torch.device(device or _best_device())
        self.model = loaded.to(self.device).eval()
        self.reliability = reliability and load_reliability(reliability, reliability_identity(self.model))
        self._files_at = {NAME: reliability and Path(reliability), BOUNDS: Path(conformal) if conformal else folder}
        self._bounds: dict[str, MaskBounds] = {}  # by the looks they are for
        self.reset_predictor()
        self._encoder = Encoder(self.model, self.device, remember)

    def set_image(self, image: Any) -> None:
        """Encode a picture: ``uint8 [H, W, 3]`` RGB, a PIL image, a path, or a tensor ``[3, H, W]``.

        As a person sees it, EXIF applied. Raises `RuacError` for an unreadable file or an array of another shape or
        type, see `picture.picture_of`.
        """
        self.reset_predictor()  # a picture that cannot be read must not be answered for by the one before
        self._pictures = self._encoder([picture_of(image)])

    def set_image_batch(self, image_list: Sequence[Any]) -> None:
        """Encode pictures, each in any form and of any size, for `predict_batch`."""
        self.reset_predictor()
        if not isinstance(image_list, Sequence) or isinstance(image_list, str) or not len(image_list):
            raise RuacError("image_list: expected a list of at least one picture")
        self._pictures = self._encoder([picture_of(image, f"image {n}") for n, image in enumerate(image_list)])

    def predict(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        box: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
        *,
        decomposed: bool = False,
        correct: bool = False,
        looks: LooksConfig | Sequence[str] | None = None,
        alpha: float | None = None,
    ) -> PredictedMasks:
        """Answer prompts on the image set before.

        point_coords: ``[P, 2]`` (x, y) in picture pixels, with point_labels ``[P]``, 1 object and 0 background (and -1
        for padding). box: ``[4]`` x0, y0, x1, y1. mask_input: ``[h, w]`` or ``[1, h, w]`` logits of an earlier
        answer. For N objects at once each has one more dimension in front; points may be a list of N arrays of
        different lengths. multimask_output: three candidates instead of one mask, where the backbone has them.
        return_logits: masks are logits at the picture's size. normalize_coords: coordinates are pixels; False: they are
        shares of the picture's sides.

        decomposed: also aleatoric and epistemic maps. correct: drop uncertain components of the masks
        (`unccorr.corrected`); all else stays as it is. looks: look at the object again (``["zoom"]``, see
        `LooksConfig`; default: as the model was made, or not); one mask comes back, that of the best score, with
        aleatoric and epistemic maps, and its logits are the first look's. alpha: also inner and outer masks that are
        wrong by at most this share in expectation.

        Raises `RuacError` without an image, without a prompt, for arrays of another shape, or for an alpha without
        conformal bounds of this model that allow it.
        """
        picture = self._picture("predict")
        asked = (point_coords, point_labels, box, mask_input, normalize_coords)
        how = self._how(multimask_output, return_logits, decomposed, correct, looks, alpha)
        return self._answer(picture, asked, how)

    def sketch(self, point_coords: Any, point_labels: Any) -> PredictedMasks:
        """`predict` for points, with maps as coarse as SAM 2's logits, ``[M, h, w]``, and without looks.

        To choose among many answers at a small part of the cost of maps at the picture's size.
        """
        asked = (point_coords, point_labels, None, None, True)
        return self._answer(self._picture("sketch"), asked, AnswerOptions(coarse=True))

    def predict_batch(
        self,
        point_coords_batch: Sequence | None = None,
        point_labels_batch: Sequence | None = None,
        box_batch: Sequence | None = None,
        mask_input_batch: Sequence | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
        **options: Any,
    ) -> PredictedBatch:
        """Answer prompts on the pictures of `set_image_batch`: lists with an entry per picture, each as in `predict`.

        An entry may be None where that picture has no such prompt. options: those of `predict`. Raises `RuacError` as
        `predict` does, and for lists of another length.
        """
        if not self._pictures:
            raise RuacError("predict_batch: no images; call set_image_batch first")
        count = len(self._pictures)
        given = dict(point_coords=point_coords_batch, point_labels=point_labels_batch, box=box_batch)
        given["mask_input"] = mask_input_batch
        for name, values in given.items():
            if values is not None and len(values) != count:
                raise RuacError(f"{name}_batch: {len(values)} entries, expected {count}, one per image")
        columns = [[None] * count if values is None else values for values in given.values()]
        how = self._how(multimask_output, return_logits, **options)
        rows = zip(self._pictures, *columns, strict=True)
        return PredictedBatch([self._answer(picture, (*asked, normalize_coords), how) for picture, *asked in rows])

    def accept(self, answer: PredictedMasks, risk: float, *, looks: Sequence[str] = ()) -> np.ndarray:
        """Which masks of an answer are good enough that those accepted have a mean of 1 - IoU of at most `risk`.

        The others are for a person to review. ``bool [M]``, or ``[N, M]``. looks: those that the answer was given
        with. Raises `RuacError` without a fit, see `reliability.Reader.threshold_for`.
        """
        looks = [looks] if isinstance(looks, str) else list(looks)
        reader = self.reliability and self.reliability.reader(looks)
        if reader is None or answer.reliability is None:
            raise RuacError(f"accept: no reliability for looks {looks}; expected a model with a fit of fit-reliability")
        return answer.reliability >= reader.threshold_for(risk)

    @property
    def picture_size(self) -> tuple[int, int]:
        """(H, W) of the picture that is set. Raises `RuacError` if there is none, or more than one."""
        return self._picture("picture_size").size

    @property
    def picture_features(self) -> Features:
        """Features of the picture that is set, B = 1. Raises as `picture_size` does."""
        return self._picture("picture_features").features

    def get_image_embedding(self) -> Tensor:
        """What the mask decoder attends to, ``[B, D, S/16, S/16]`` of the B pictures that are set."""
        if not self._pictures:
            raise RuacError("get_image_embedding: no image; call set_image first")
        return torch.cat([picture.features.embedding for picture in self._pictures])

    def save_embeddings(self, path: str | Path) -> Path:
        """Write the features of the pictures that are set as safetensors, with the backbone's hash."""
        if not self._pictures:
            raise RuacError("save_embeddings: no image; call set_image first")
        return save_embeddings(path, self._pictures, backbone_identity(self.model.backbone))

    def load_embeddings(self, path: str | Path) -> None:
        """Set the pictures of a file of `save_embeddings`, without encoding them again.

        Raises `RuacError` for embeddings of another backbone. Looks need the picture itself and are refused after it.
        """
        self.reset_predictor()
        self._pictures = load_embeddings(path, backbone_identity(self.model.backbone), self.device)

    def reset_predictor(self) -> None:
        """Forget which picture is set."""
        self._pictures: list[EncodedPicture] = []

    def bounds(self, looks: LooksConfig | None) -> MaskBounds:
        """Conformal bounds of this model, looking as often; its hash is taken once. Raises `RuacError` for none."""
        if (place := self._files_at[BOUNDS]) is None:
            raise RuacError("alpha: no conformal bounds; expected conformal=, or an export with such a file")
        if repr(looks) not in self._bounds:
            self._bounds[repr(looks)] = read_bounds(place, self.model.looking(looks))
        return self._bounds[repr(looks)]

    def _picture(self, what: str) -> EncodedPicture:
        if not self._pictures:
            raise RuacError(f"{what}: no image; call set_image first")
        if len(self._pictures) > 1:
            raise RuacError(f"{what}: {len(self._pictures)} images are set; call predict_batch")
        return self._pictures[0]

    @torch.no_grad()
    def _answer(self, picture: EncodedPicture, asked: tuple, how: AnswerOptions) -> PredictedMasks:
        body = self.model.backbone
        groups = UserPrompts(*asked, picture.size, body.frame(picture.size), body.mask_stride).groups(self.device)
        places, parts = [], []
        for group, prompts in groups:
            for start in range(0, len(group), DECODED):
                some = slice(start, start + DECODED)
                places += group[some]
                parts.append(self._decode(picture, prompts.select(some), how))
        order = np.argsort(places)
        whole = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
        whole = {name: array[0] if len(order) == 1 else array for name, array in whole.items()}
        return _bounded(PredictedMasks(**whole), how.thresholds)

    def _decode(self, picture: EncodedPicture, prompts: Prompts, how: AnswerOptions) -> dict[str, np.ndarray]:
        """The arrays of `PredictedMasks` with the objects in front."""
        count = len(prompts.labels)
        index = torch.zeros(count, dtype=torch.int64, device=self.device)
        features = picture.features if count == 1 else picture.features.gather(index)
        prediction = self.model.decode(features, prompts)
        if how.multimask and not self.model.backbone.boxes_only:
            tokens = 1 + prediction.iou[:, 1:].argsort(dim=1, descending=True, stable=True)  # [N, 3]
        else:
            tokens = self.model.backbone.single_mask(prediction.decoded)[:, None]
        logits = of_tokens(prediction.logits, tokens)
        if how.looks is not None:
            return self._look_again(picture, prompts, prediction, tokens[:, 0], how)
        size = tuple(logits.shape[-2:]) if how.coarse else picture.size
        maps = prediction.maps(tokens, size, parts=how.decomposed)
        uncertainty = _array(maps.total)
        if how.logits:
            masks = _array(upsample(logits, size))
        else:  # one by one: a picture of 100 megapixels has 0.4 GB in each map
            hard = [_array(upsample(one, size)[:, 0] > 0) for one in logits.split(1, dim=1)]
            masks = self._filtered(np.stack(hard, axis=1), uncertainty, how)
        answer = {
            "masks": masks,
            "scores": _array(of_tokens(prediction.iou, tokens)),
            "logits": _array(as_prompt(logits)),
            "probability": _array(maps.probability),
            "uncertainty": uncertainty,
            **{name: _array(part) for name, part in maps.parts.items()},
            "tokens": tokens.cpu().numpy(),
        }
        return answer | self._judged(answer, [])

    def _look_again(
        self, picture: EncodedPicture, prompts: Prompts, prediction: Prediction, choice: Tensor, how: AnswerOptions
    ) -> dict[str, np.ndarray]:
        if picture.image is None:
            raise RuacError("looks: expected a picture of set_image; saved embeddings cannot be looked at again")
        logits = of_tokens(prediction.logits, choice[:, None])
        masks = _array(upsample(logits, picture.size)[:, 0] > 0)
        question = Question(picture.image, prompts, prediction, choice, masks)
        looked = look_again(self.model, how.looks, question, parts=True)
        uncertainty = _array(looked.maps.total)
        answer = {
            "masks": self._filtered(looked.masks[:, None], uncertainty, how),
            "scores": _array(looked.iou)[:, None],
            "logits": _array(as_prompt(logits)),
            "probability": _array(looked.maps.probability),
            "uncertainty": uncertainty,
            **{name: _array(part) for name, part in looked.maps.parts.items()},
            "tokens": choice[:, None].cpu().numpy(),
        }
        return answer | self._judged(answer, how.looks.looks, first=masks[:, None])

    def _judged(
        self, answer: dict[str, np.ndarray], looks: list[str], first: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        reader = self.reliability and self.reliability.reader(looks)
        if reader is None:
            return {}
        features = mask_features(answer["masks"] > 0, answer["probability"], answer["scores"], first)
        return {"reliability": reader.read(features)}

    def _filtered(self, masks: np.ndarray, uncertainty: np.ndarray, how: AnswerOptions) -> np.ndarray:
        flat, doubt = (array.reshape(-1, *array.shape[2:]) for array in (masks, uncertainty))
        flat = self.model.filtered(flat, doubt)
        return (UncCorr()(flat, doubt) if how.correct else flat).reshape(masks.shape)

    def _how(
        self,
        multimask: bool,
        logits: bool,
        decomposed: bool = False,
        correct: bool = False,
        looks: LooksConfig | Sequence[str] | None = None,
        alpha: float | None = None,
    ) -> AnswerOptions:
        looks = looks_config(self.model.looks if looks is None else looks)
        if logits and (correct or looks is not None):
            raise RuacError("return_logits: expected without correct and looks, which change masks and no logits")
        thresholds = None if alpha is None else self.bounds(looks).at(alpha)
        return AnswerOptions(multimask, logits, decomposed, correct, looks, thresholds)


def _bounded(answer: PredictedMasks, thresholds: Thresholds | None) -> PredictedMasks:
    if thresholds is None:
        return answer
    inner, outer = thresholds(answer.probability)
    return replace(answer, inner=inner, outer=outer)


def _array(tensor: Tensor) -> np.ndarray:
    return (tensor if tensor.dtype == torch.bool else tensor.float()).cpu().numpy()


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
