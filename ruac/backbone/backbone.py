"""A SAM 2 model as two functions: `encode` an image, `decode` prompted objects."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.backbone.outputs import Decoded, Features, best_candidate
from ruac.backbone.prompts import Prompts
from ruac.base.errors import RuacError

if TYPE_CHECKING:
    from ruac.backbone.load import BackboneConfig


class MemoryBlocks(NamedTuple):
    """The memory-encoder modules the deformation attacker copies (method, sec. 3.3).

    mask_downsampler: ``[N, 1, S, S] -> [N, D, S/16, S/16]``. pix_feat_proj: ``[B, D, s, s] -> [B, D, s, s]``.
    fuser: the same shapes, over their sum.
    """

    mask_downsampler: nn.Module
    pix_feat_proj: nn.Module
    fuser: nn.Module


class Backbone(nn.Module):
    """Wraps a SAM 2 model (official or nano) for differentiable, batched, promptable segmentation.

    sam: a `SAM2Base` or a module with its attribute names. name: for messages and provenance.
    """

    def __init__(self, sam: nn.Module, *, name: str):
        super().__init__()
        self.sam = sam
        self.name = name
        self.stride, self.mask_stride = 16, 4  # of the embedding and of decoded maps, in pixels
        self.boxes_only = False  # whether it was trained for boxes, and for the single mask
        self.config: BackboneConfig | None = None  # how to build it again, where it was built by one
        decoder = sam.sam_mask_decoder
        self.token_dim: int = decoder.transformer_dim
        self.channels: int = decoder.transformer_dim // 8
        self.resize(sam.image_size)

    @property
    def image_size(self) -> int:
        return self.sam.image_size

    def resize(self, side: int) -> None:
        """Work on images of `side` pixels from now on; weights do not depend on it.

        Raises `RuacError` unless `side` is a positive multiple of 32.
        """
        if side <= 0 or side % 32:
            raise RuacError(f"image_size {side}: expected a positive multiple of 32")
        cells = side // 16
        prompt_encoder = self.sam.sam_prompt_encoder
        prompt_encoder.image_embedding_size = (cells, cells)
        prompt_encoder.input_image_size = (side, side)
        prompt_encoder.mask_input_size = (4 * cells, 4 * cells)
        self.sam.image_size = side

    def frame(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of model pixels that a picture of `size` (H, W) fills: SAM 2 stretches it to its square."""
        return self.image_size, self.image_size

    def encode(self, images: Tensor) -> Features:
        """Encode ``[B, 3, S, S]`` ImageNet-normalised images; differentiable to the images."""
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"images are {tuple(images.shape)}, expected [B, 3, {self.image_size}, {self.image_size}]")
        decoder = self.sam.sam_mask_decoder
        fine, middle, coarse = self.sam.image_encoder(images)["backbone_fpn"][:3]
        if self.sam.directly_add_no_mem_embed:
            coarse = coarse + self.sam.no_mem_embed.view(1, -1, 1, 1)
        return Features(coarse, [decoder.conv_s0(fine), decoder.conv_s1(middle)], F.avg_pool2d(images, 4))

    def decode(self, features: Features, prompts: Prompts) -> Decoded:
        """Decode N prompts on features already gathered per object (``features.embedding [N, ...]``)."""
        # Without a point SAM 2 is given none, rather than a list of none, to which it would add its padding.
        points = (prompts.points, prompts.labels) if prompts.labels.shape[1] else None
        return self.decode_embedded(
            features, *self.sam.sam_prompt_encoder(points=points, boxes=None, masks=prompts.mask_logits)
        )

    def decode_embedded(self, features: Features, sparse: Tensor, dense: Tensor) -> Decoded:
        """The same of prompts as SAM 2's prompt encoder leaves them: ``[N, P, D]`` and ``[N, D, S/16, S/16]``.

        SAM 2's own decoder runs unchanged; the two factors of its last inner product are read
        off by hooks, so that a head can replace that step without a copy of the decoder.
        """
        decoder = self.sam.sam_mask_decoder
        factors, weights, hooks = self.read_factors()
        try:
            logits, iou, tokens, object_score = decoder.predict_masks(
                image_embeddings=features.embedding,
                image_pe=self.sam.sam_prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                repeat_image=False,
                high_res_features=features.high_res,
            )
        finally:
            for hook in hooks:
                hook.remove()
        return Decoded(
            logits=logits,
            iou=iou,
            object_score=object_score,
            mask_tokens=tokens,
            pixel_tokens=factors["pixels"],
            mask_weights=torch.stack(weights, dim=1),  # [N, 4, c]
        )

    def single_mask(self, decoded: Decoded) -> Tensor:
        """Token of the mask that SAM 2 returns where one is asked for, int64 ``[N]``.

        0, but for a decoder built with SAM 2's fallback (``dynamic_multimask_via_stability``): there the best candidate
        replaces a single mask whose area depends too much on the threshold.
        """
        decoder = self.sam.sam_mask_decoder
        single = torch.zeros(len(decoded.iou), dtype=torch.int64, device=decoded.iou.device)
        if not decoder.dynamic_multimask_via_stability:
            return single
        stability = decoder._get_stability_scores(decoded.logits[:, 0])  # [N]
        return torch.where(stability < decoder.dynamic_multimask_stability_thresh, best_candidate(decoded.iou), single)

    def read_factors(self) -> tuple[dict[str, Tensor], list[Tensor], list]:
        """Where the next decoder pass leaves ``pixels [N, c, h, w]`` and, per token, ``weights [N, c]``, and the hooks
        that do it, which the caller removes."""
        decoder = self.sam.sam_mask_decoder
        factors: dict[str, Tensor] = {}
        weights: list[Tensor] = []
        hooks = [decoder.output_upscaling[-1].register_forward_hook(lambda _m, _i, out: factors.update(pixels=out))]
        hooks += [
            mlp.register_forward_hook(lambda _m, _i, out: weights.append(out))
            for mlp in decoder.output_hypernetworks_mlps
        ]
        return factors, weights, hooks

    def memory_blocks(self) -> MemoryBlocks | None:
        """Frozen copies of the memory encoder's mask embedding, image projection and fuser; None without a memory."""
        source = self.sam.memory_encoder
        if source is None:
            return None
        blocks = MemoryBlocks(*(copy.deepcopy(getattr(source, name)) for name in MemoryBlocks._fields))
        for block in blocks:
            block.requires_grad_(False).eval()
        return blocks

    def freeze(self) -> Backbone:
        """Stop all gradients to the weights (not to the images)."""
        self.requires_grad_(False)
        return self.eval()
