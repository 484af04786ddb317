"""Names of SAM 2's tensors in the transformers library (``Sam2Model``, ``Sam2VideoModel``), both ways.

The same numbers under other names, but for two: the four point embeddings are one table there, and the matrix of the
position code stands there twice, for prompts and for the picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ruac.base.errors import RuacError

# Beginnings of names, ours and theirs; # is a number and * a word, each the same in both. The first that fits counts.
_MLP = (("layers.0.", "proj_in."), ("layers.1.", "layers.0."), ("layers.2.", "proj_out."))
_RULES = (
    ("image_encoder.trunk.patch_embed.proj.", "vision_encoder.backbone.patch_embed.projection."),
    ("image_encoder.trunk.blocks.#.norm#.", "vision_encoder.backbone.blocks.#.layer_norm#."),
    ("image_encoder.trunk.blocks.#.mlp.layers.0.", "vision_encoder.backbone.blocks.#.mlp.proj_in."),
    ("image_encoder.trunk.blocks.#.mlp.layers.1.", "vision_encoder.backbone.blocks.#.mlp.proj_out."),
    ("image_encoder.trunk.", "vision_encoder.backbone."),
    ("image_encoder.neck.convs.#.conv.", "vision_encoder.neck.convs.#."),
    ("sam_prompt_encoder.mask_downscaling.0.", "prompt_encoder.mask_embed.conv1."),
    ("sam_prompt_encoder.mask_downscaling.1.", "prompt_encoder.mask_embed.layer_norm1."),
    ("sam_prompt_encoder.mask_downscaling.3.", "prompt_encoder.mask_embed.conv2."),
    ("sam_prompt_encoder.mask_downscaling.4.", "prompt_encoder.mask_embed.layer_norm2."),
    ("sam_prompt_encoder.mask_downscaling.6.", "prompt_encoder.mask_embed.conv3."),
    ("sam_prompt_encoder.", "prompt_encoder."),
    ("sam_mask_decoder.transformer.layers.#.norm#.", "mask_decoder.transformer.layers.#.layer_norm#."),
    ("sam_mask_decoder.transformer.layers.#.mlp.layers.0.", "mask_decoder.transformer.layers.#.mlp.proj_in."),
    ("sam_mask_decoder.transformer.layers.#.mlp.layers.1.", "mask_decoder.transformer.layers.#.mlp.proj_out."),
    ("sam_mask_decoder.transformer.layers.#.*.out_proj.", "mask_decoder.transformer.layers.#.*.o_proj."),
    ("sam_mask_decoder.transformer.*.out_proj.", "mask_decoder.transformer.*.o_proj."),
    ("sam_mask_decoder.transformer.norm_final_attn.", "mask_decoder.transformer.layer_norm_final_attn."),
    ("sam_mask_decoder.output_upscaling.0.", "mask_decoder.upscale_conv1."),
    ("sam_mask_decoder.output_upscaling.1.", "mask_decoder.upscale_layer_norm."),
    ("sam_mask_decoder.output_upscaling.3.", "mask_decoder.upscale_conv2."),
    *(
        (f"sam_mask_decoder.{mlp}.{own}", f"mask_decoder.{mlp}.{theirs}")
        for mlp in ("output_hypernetworks_mlps.#", "iou_prediction_head", "pred_obj_score_head")
        for own, theirs in _MLP
    ),
    ("sam_mask_decoder.", "mask_decoder."),
    ("no_mem_embed", "no_memory_embedding"),
    ("no_mem_pos_enc", "no_memory_positional_encoding"),
    ("maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    ("no_obj_ptr", "no_object_pointer"),
    ("no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
    *((f"obj_ptr_proj.{own}", f"object_pointer_proj.{theirs}") for own, theirs in _MLP),
    ("obj_ptr_tpos_proj.", "temporal_positional_encoding_projection_layer."),
    ("memory_attention.layers.#.norm#.", "memory_attention.layers.#.layer_norm#."),
    ("memory_attention.layers.#.*.out_proj.", "memory_attention.layers.#.*.o_proj."),
    ("memory_attention.norm.", "memory_attention.layer_norm."),
    *(
        (f"memory_encoder.mask_downsampler.encoder.{3 * n + k}.", f"memory_encoder.mask_downsampler.layers.{n}.{part}.")
        for n in range(4)
        for k, part in enumerate(("conv", "layer_norm"))
    ),
    ("memory_encoder.mask_downsampler.encoder.12.", "memory_encoder.mask_downsampler.final_conv."),
    ("memory_encoder.pix_feat_proj.", "memory_encoder.feature_projection."),
    ("memory_encoder.fuser.layers.#.gamma", "memory_encoder.memory_fuser.layers.#.scale"),
    ("memory_encoder.fuser.layers.#.dwconv.", "memory_encoder.memory_fuser.layers.#.depthwise_conv."),
    ("memory_encoder.fuser.layers.#.norm.", "memory_encoder.memory_fuser.layers.#.layer_norm."),
    ("memory_encoder.fuser.layers.#.pwconv#.", "memory_encoder.memory_fuser.layers.#.pointwise_conv#."),
    ("memory_encoder.out_proj.", "memory_encoder.projection."),
)
_MATRIX = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_MATRICES = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")
_POINTS, _POINT = "prompt_encoder.point_embed.weight", "sam_prompt_encoder.point_embeddings.{}.weight"


def of_transformers(names: Iterable[str]) -> bool:
    """Whether these are names of that library."""
    return any(name.startswith("vision_encoder.") for name in names)


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with SAM 2's own names, under those of ``Sam2VideoModel``, of which ``Sam2Model`` has a part."""
    renamed = {_rename(name, _OURS): tensor for name, tensor in state.items()}
    points = [renamed.pop(f"prompt_encoder.point_embeddings.{n}.weight") for n in range(4)]
    matrix = renamed.pop(_rename(_MATRIX, _OURS))
    return renamed | {_POINTS: torch.cat(points)} | {name: matrix.clone() for name in _MATRICES}


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse. Raises `RuacError` without the tensors that are kept otherwise there, or if the two copies of the
    matrix of the position code differ."""
    state = dict(state)
    matrices = [state.pop(name) for name in _MATRICES if name in state]
    if not matrices or _POINTS not in state:
        missing = _POINTS if matrices else " and ".join(_MATRICES)
        raise RuacError(f"a checkpoint of transformers without {missing}")
    if any(not torch.equal(matrix, matrices[0]) for matrix in matrices):
        raise RuacError(f"{' and '.join(_MATRICES)} differ; expected one position code")
    points = state.pop(_POINTS)
    renamed = {_rename(name, _THEIRS): tensor for name, tensor in state.items()}
    return renamed | {_POINT.format(n): row[None] for n, row in enumerate(points)} | {_MATRIX: matrices[0]}


def _compiled(pairs: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern, str]]:
    found = []
    for source, target in pairs:
        pattern = re.escape(source).replace(r"\#", r"(\d+)").replace(r"\*", r"(\w+)")
        count = iter(range(1, 9))
        found.append((re.compile(f"^{pattern}"), re.sub(r"[#*]", lambda _, count=count: rf"\{next(count)}", target)))
    return found


def _rename(name: str, rules: list[tuple[re.Pattern, str]]) -> str:
    for pattern, target in rules:
        if pattern.match(name):
            return pattern.sub(target, name)
    return name


_OURS, _THEIRS = _compiled(_RULES), _compiled((theirs, own) for own, theirs in _RULES)
