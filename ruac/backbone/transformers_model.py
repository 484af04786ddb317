"""``Sam2Model`` of the transformers library (an extra) from a backbone, and a backbone from one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ruac.backbone.backbone import Backbone
from ruac.backbone.checkpoint import drop_memory, identify, load_state
from ruac.backbone.load import backbone_config, build_backbone
from ruac.backbone.names import OFFICIAL
from ruac.backbone.transformers_names import from_transformers, to_transformers
from ruac.base.errors import RuacError

if TYPE_CHECKING:
    from transformers import Sam2Model, Sam2VideoModel


def backbone_from_transformers(model: Sam2Model | Sam2VideoModel) -> Backbone:
    """The same model as a frozen backbone on the CPU; of a ``Sam2Model``, which has no memory, for single images.

    Raises `RuacError` for a model of another architecture than the four official ones.
    """
    state = from_transformers({name: tensor.detach().cpu().float() for name, tensor in model.state_dict().items()})
    size = identify({name: tuple(tensor.shape) for name, tensor in state.items()})
    if size is None:
        raise RuacError(f"{type(model).__name__}: expected the architecture of one of {', '.join(OFFICIAL)}")
    side = model.prompt_encoder.input_image_size
    with torch.random.fork_rng(devices=[]):
        backbone = build_backbone(replace(backbone_config(size), image_size=side))
    drop_memory(backbone.sam, state)
    load_state(backbone.sam, state, size, type(model).__name__)
    return backbone.freeze()


def backbone_to_transformers(backbone: Backbone) -> Sam2Model:
    """The same model as a ``Sam2Model`` for images of the backbone's side, in eval mode; memory stays behind.

    Raises `RuacError` for a backbone of another architecture than the official ones, and without transformers.
    """
    try:
        from transformers import Sam2Config, Sam2Model, Sam2VisionConfig
        from transformers.models.sam2.configuration_sam2 import (
            Sam2HieraDetConfig,
            Sam2MaskDecoderConfig,
            Sam2PromptEncoderConfig,
        )
    except ImportError:
        raise RuacError("transformers: not installed, or older than 4.56; pip install 'ruac[transformers]'") from None
    sam, side = backbone.sam, backbone.image_size
    if identify({name: tuple(tensor.shape) for name, tensor in sam.state_dict().items()}) is None:
        raise RuacError(f"backbone {backbone.name}: expected one of {', '.join(OFFICIAL)}; transformers has no other")
    trunk, decoder = sam.image_encoder.trunk, sam.sam_mask_decoder
    ends = trunk.stage_ends
    hiera = Sam2HieraDetConfig(
        hidden_size=trunk.patch_embed.proj.out_channels,
        image_size=[side, side],
        num_attention_heads=trunk.blocks[0].attn.num_heads,
        blocks_per_stage=[end - start for start, end in zip([-1, *ends], ends, strict=False)],
        embed_dim_per_stage=trunk.channel_list[::-1],
        num_attention_heads_per_stage=[trunk.blocks[end].attn.num_heads for end in ends],
        window_size_per_stage=list(trunk.window_spec),
        global_attention_blocks=list(trunk.global_att_blocks),
        window_positional_embedding_background_size=list(trunk.window_pos_embed_bkg_spatial_size),
    )
    vision = Sam2VisionConfig(
        backbone_config=hiera,
        backbone_channel_list=list(trunk.channel_list),
        backbone_feature_sizes=[[side // stride] * 2 for stride in (4, 8, 16)],
    )
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config=Sam2PromptEncoderConfig(image_size=side),
        mask_decoder_config=Sam2MaskDecoderConfig(
            dynamic_multimask_via_stability=decoder.dynamic_multimask_via_stability,
            dynamic_multimask_stability_delta=decoder.dynamic_multimask_stability_delta,
            dynamic_multimask_stability_thresh=decoder.dynamic_multimask_stability_thresh,
        ),
    )
    with torch.random.fork_rng(devices=[]):
        model = Sam2Model(config)
    wanted = model.state_dict()
    state = {name: tensor for name, tensor in to_transformers(sam.state_dict()).items() if name in wanted}
    model.load_state_dict(state)
    return model.eval()
