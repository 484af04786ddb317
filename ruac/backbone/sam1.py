"""Models with the decoder of SAM 1 (LiteMedSAM, SAM, MobileSAM) as a `Backbone`: padded pictures, no fine features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.backbone.backbone import Backbone
from ruac.backbone.checkpoint import read_state
from ruac.backbone.outputs import Decoded, Features
from ruac.backbone.prompts import BOX_FIRST, PADDING, Prompts
from ruac.base.errors import RuacError, brief
from ruac.data.augment import MEAN, STD

VALUES = ("minmax", "imagenet")
_PRESENT = 10.0  # SAM 1 has no score of presence; SAM 2 says this where it has none
_ABSENT = -32.0  # mask prompt of the padding: certainly not the object


@dataclass(frozen=True)
class Sam1Spec:
    """How a SAM 1 wants its input. stride: of its embedding, in pixels. values: ``minmax``, each picture by its own
    minimum and maximum to [0, 1], or ``imagenet`` statistics. boxes_only: trained for boxes and one mask."""

    stride: int = 16
    values: str = "imagenet"
    boxes_only: bool = False

    def __post_init__(self) -> None:
        if self.values not in VALUES:
            raise RuacError(f"values: {self.values!r}, expected {' or '.join(VALUES)}")


MEDSAM = Sam1Spec(stride=4, values="minmax", boxes_only=True)


class Sam1(nn.Module):
    """The parts of a SAM 1 under the names of `SAM2Base`. image_size: side of its fixed input in pixels."""

    def __init__(self, image_encoder: nn.Module, prompt_encoder: nn.Module, mask_decoder: nn.Module, image_size: int):
        super().__init__()
        self.image_encoder = image_encoder
        self.sam_prompt_encoder = prompt_encoder
        self.sam_mask_decoder = mask_decoder
        self.image_size = image_size


class Sam1Backbone(Backbone):
    """A SAM 1 behind `encode` and `decode`.

    The longer side of a picture is scaled to the input's side and the rest padded below and to the right. Callers see
    nothing of the padding: pictures come without it, `frame` says how large, and decoded maps end where they do.
    """

    def __init__(self, sam: Sam1, *, name: str, spec: Sam1Spec):
        self.spec = spec
        super().__init__(sam, name=name)
        self.stride = spec.stride
        self.mask_stride = max(1, spec.stride // 4)  # two upscalings by 2
        self.boxes_only = spec.boxes_only

    def resize(self, side: int) -> None:
        """Raises `RuacError` for another side than the model's: its position codes belong to it."""
        if side != self.sam.image_size:
            raise RuacError(f"image_size {side}: expected {self.sam.image_size}, the only one of this model")

    def frame(self, size: tuple[int, int]) -> tuple[int, int]:
        """The longer side fills the input; whole cells of the decoder's maps, so that they end with the picture."""
        scale, cell = self.image_size / max(size), self.mask_stride
        rows, columns = (max(cell, int(length * scale / cell + 0.5) * cell) for length in size)
        return rows, columns

    def encode(self, images: Tensor) -> Features:
        """Encode ``[B, 3, h, w]`` ImageNet-normalised pictures of one `frame`; differentiable to them."""
        side, frame = self.image_size, tuple(images.shape[-2:])
        if max(frame) > side or any(length % self.mask_stride for length in frame):
            raise ValueError(f"images are {tuple(images.shape)}, expected a frame within {side} x {side}")
        pixels = F.pad(self._values(images), (0, side - frame[1], 0, side - frame[0]))
        image = F.avg_pool2d(images, self.mask_stride)
        return Features(self.sam.image_encoder(pixels), [], image, frame)

    def decode(self, features: Features, prompts: Prompts) -> Decoded:
        """Decode N prompts on features gathered per object.

        Raises `RuacError` for clicks alone where the model answers boxes only.
        """
        if self.boxes_only and not (prompts.labels == BOX_FIRST).any(dim=1).all():
            raise RuacError(
                f"{self.name}: answers boxes, not clicks alone; expected a box with every prompt "
                "(predict(box=...), protocol.box=true in a sweep, box_share=1 in training)"
            )
        frame = features.frame or (self.image_size, self.image_size)
        encoder, decoder = self.sam.sam_prompt_encoder, self.sam.sam_mask_decoder
        factors, weights, hooks = self.read_factors()
        tokens: list[Tensor] = []
        hooks.append(decoder.transformer.register_forward_hook(lambda _m, _i, out: tokens.append(out[0])))
        try:
            logits, iou = decoder.predict_masks(
                image_embeddings=features.embedding,
                image_pe=encoder.get_dense_pe(),
                sparse_prompt_embeddings=self._sparse(prompts),
                dense_prompt_embeddings=self._dense(prompts, frame),
            )
        finally:
            for hook in hooks:
                hook.remove()
        rows, columns = (length // self.mask_stride for length in frame)
        decoded = Decoded(
            logits=logits[..., :rows, :columns],
            iou=iou,
            object_score=torch.full_like(iou[:, :1], _PRESENT),
            mask_tokens=tokens[0][:, 1 : 1 + iou.shape[1]],
            pixel_tokens=factors["pixels"][..., :rows, :columns],
            mask_weights=torch.stack(weights, dim=1),
        )
        return _single(decoded) if self.boxes_only else decoded

    def single_mask(self, decoded: Decoded) -> Tensor:
        """Token 0: SAM 1 has no fallback for unstable masks."""
        return torch.zeros(len(decoded.iou), dtype=torch.int64, device=decoded.iou.device)

    def memory_blocks(self) -> None:
        """None: SAM 1 has no memory encoder."""

    def _values(self, images: Tensor) -> Tensor:
        if self.spec.values == "imagenet":
            return images
        pixels = images * STD.to(images) + MEAN.to(images)
        low, high = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
        return (pixels - low) / (high - low).clamp(min=1e-8)

    def _sparse(self, prompts: Prompts) -> Tensor:
        """Points and corners as SAM 1's prompt encoder embeds them, in one list, so that batches may hold both."""
        encoder, points, labels = self.sam.sam_prompt_encoder, prompts.points, prompts.labels
        if not (labels == BOX_FIRST).any():  # SAM 1 adds a padding point to clicks without a box
            points = torch.cat([points, torch.zeros_like(points[:, :1])], dim=1)
            labels = torch.cat([labels, torch.full_like(labels[:, :1], PADDING)], dim=1)
        code = encoder.pe_layer.forward_with_coords(points + 0.5, encoder.input_image_size)
        code = torch.where((labels == PADDING)[..., None], torch.zeros_like(code), code)
        kinds = [encoder.not_a_point_embed.weight, *(each.weight for each in encoder.point_embeddings)]
        return code + torch.cat(kinds)[labels + 1]

    def _dense(self, prompts: Prompts, frame: tuple[int, int]) -> Tensor:
        encoder, count = self.sam.sam_prompt_encoder, len(prompts.points)
        if prompts.mask_logits is None:
            size = encoder.image_embedding_size
            return encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(count, -1, *size)
        across, down = ((self.image_size - length) // self.mask_stride for length in frame[::-1])
        return encoder.mask_downscaling(F.pad(prompts.mask_logits, (0, across, 0, down), value=_ABSENT))


def sam1_backbone(model: nn.Module, image_size: int, *, name: str, spec: Sam1Spec) -> Sam1Backbone:
    """Bring your own SAM: a `model` with `image_encoder`, `prompt_encoder` and `mask_decoder`.

    image_size: side of its input. Raises `RuacError` if it is another one than the model's.
    """
    own = model.prompt_encoder.input_image_size[0]
    if image_size != own:
        raise RuacError(f"image_size {image_size}: expected {own}, the only one of {name}")
    sam = Sam1(model.image_encoder, model.prompt_encoder, model.mask_decoder, own)
    return Sam1Backbone(sam, name=name, spec=spec)


def load_sam1(sam: Sam1, path: str | Path) -> None:
    """Copy a checkpoint with SAM 1's names; every name and shape must agree.

    Raises `RuacError` naming the file, which may hold tensors only.
    """
    state = read_state(path, key=None)
    state = {name if name.startswith("image_encoder.") else f"sam_{name}": value for name, value in state.items()}
    try:
        sam.load_state_dict(state)
    except RuntimeError as error:
        raise RuacError(f"{path}: not weights of this model: {brief(error)}") from error


def _single(decoded: Decoded) -> Decoded:
    """All candidates are the single mask, which alone was trained."""
    return replace(
        decoded,
        **{
            name: getattr(decoded, name)[:, :1].expand_as(getattr(decoded, name))
            for name in ("logits", "iou", "mask_tokens", "mask_weights")
        },
    )
