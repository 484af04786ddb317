"""The embedded default: a small SAM 2 put together from the sam2 package's own parts."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ruac.backbone import sam2_parts as sam2
from ruac.backbone.mobilenet import MobileNetV2Trunk
from ruac.base.errors import RuacError, brief
from ruac.base.files import atomic_path

TRUNKS = ("mobilenet_v2", "hiera")
_SHARPNESS = 2.5  # of the first attention: its logits span about +-4


class Nano(nn.Module):
    """A SAM 2 for single images with the attribute names of `SAM2Base`.

    trunk: ``mobilenet_v2`` or ``hiera`` (both under the same neck and decoder). width: of neck
    and decoder. mlp: hidden width of the decoder's MLPs. The memory encoder is there because the
    deformation attacker borrows its blocks; it sees no training, images carry no memory.
    """

    directly_add_no_mem_embed = True

    def __init__(self, *, image_size: int = 256, trunk: str = "mobilenet_v2", width: int = 256, mlp: int = 512):
        super().__init__()
        if trunk not in TRUNKS:
            raise RuacError(f"nano trunk {trunk!r}: expected one of {', '.join(TRUNKS)}")
        self.image_size = image_size
        body = MobileNetV2Trunk() if trunk == "mobilenet_v2" else _small_hiera()
        self.image_encoder = sam2.ImageEncoder(
            trunk=body,
            neck=sam2.FpnNeck(
                position_encoding=sam2.PositionEmbeddingSine(num_pos_feats=width),
                d_model=width,
                backbone_channel_list=body.channel_list,
                fpn_top_down_levels=[2, 3],
                fpn_interp_model="nearest",
            ),
            scalp=1,
        )
        cells = image_size // 16
        self.sam_prompt_encoder = sam2.PromptEncoder(
            embed_dim=width,
            image_embedding_size=(cells, cells),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        )
        self.sam_mask_decoder = sam2.MaskDecoder(
            num_multimask_outputs=3,
            transformer=sam2.TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=mlp, num_heads=8),
            transformer_dim=width,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
            use_high_res_features=True,
            iou_prediction_use_sigmoid=True,
            pred_obj_scores=True,
            pred_obj_scores_mlp=True,
        )
        self.memory_encoder = sam2.MemoryEncoder(
            out_dim=64,
            mask_downsampler=sam2.MaskDownSampler(embed_dim=width, kernel_size=3, stride=2, padding=1),
            fuser=sam2.Fuser(
                sam2.CXBlock(width, kernel_size=7, padding=3, layer_scale_init_value=1e-6, use_dwconv=True),
                num_layers=2,
            ),
            position_encoding=sam2.PositionEmbeddingSine(num_pos_feats=64),
            in_dim=width,
        )
        self.no_mem_embed = nn.Parameter(0.02 * torch.randn(1, 1, width))
        _start_local(self)

    def forward(self, images: Tensor) -> dict:
        return self.image_encoder(images)


@torch.no_grad()
def _start_local(nano: Nano) -> None:
    """Initial weights under which a prompt attends to its own place from the first step.

    Trunk maps are large beside the position code, and random query and key projections do not
    correlate: a click then means nothing for thousands of steps. So the neck starts with unit
    maps, and cross-attention with equal query and key projections, whose product peaks where
    position codes agree.
    """
    for convolution, deviation in zip(nano.image_encoder.neck.convs, nano.image_encoder.trunk.deviations, strict=True):
        convolution.conv.weight /= deviation
    transformer = nano.sam_mask_decoder.transformer
    crossed = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        crossed += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in crossed:
        attention.q_proj.weight *= _SHARPNESS
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.k_proj.bias.copy_(attention.q_proj.bias)


def _small_hiera() -> nn.Module:
    trunk = sam2.Hiera(
        embed_dim=48,
        num_heads=1,
        stages=(1, 2, 3, 1),
        global_att_blocks=(5,),
        window_spec=(8, 4, 8, 4),
        window_pos_embed_bkg_spatial_size=(7, 7),
    )
    trunk.deviations = (1.0, 1.0, 1.0, 1.0)
    return trunk


def load_nano(nano: Nano, path: str | Path) -> None:
    """Load nano weights strictly from safetensors or from a training checkpoint's ``backbone``.

    Raises `RuacError` that names the file and the first tensor that does not fit.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)["modules"]["backbone"]
        nano.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except FileNotFoundError:
        raise RuacError(f"{path}: checkpoint not found") from None
    except Exception as error:
        raise RuacError(f"{path}: not weights of this nano: {brief(error)}") from error


def save_nano(nano: Nano, path: str | Path) -> None:
    """Write the weights as float16 safetensors, atomically."""
    with atomic_path(path) as temporary:
        save_file({name: tensor.half().contiguous() for name, tensor in nano.state_dict().items()}, temporary)
