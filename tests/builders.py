"""What tests in several rooms build: decoder passes, models, a backbone on disk, masks as text and as RLE."""

import ruac  # noqa: F401, I001  (first of all: it mends torchvision for what is imported below)

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from pycocotools import mask as rle
from safetensors.torch import save_file
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler
from torch import Tensor, nn

from ruac.backbone import Backbone, BackboneConfig, Decoded
from ruac.backbone.backbone import MemoryBlocks
from ruac.data.sample import Record, Sample
from ruac.inference.export import export_model
from ruac.inference.model import UncertainSam
from ruac.uncertainty import BayesianConfig, HeadConfig, build_head


def make_decoded(objects=3, *, side=10, channels=8, token_dim=24, seed=2, gain=1.0, dtype=torch.float32) -> Decoded:
    """A decoder pass with random tokens, whose logits are their inner products; gain: of the weights."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(objects, channels, side, side, generator=generator)
    weights = gain * torch.randn(objects, 4, channels, generator=generator)
    return Decoded(
        logits=torch.einsum("nkc,nchw->nkhw", weights, pixels).to(dtype),
        iou=torch.rand(objects, 4, generator=generator),
        object_score=torch.ones(objects, 1),
        mask_tokens=torch.randn(objects, 4, token_dim, generator=generator).to(dtype),
        pixel_tokens=pixels.to(dtype),
        mask_weights=weights.to(dtype),
    )


def decoded_of(logits: Tensor, *, iou: Tensor | None = None, pixels: Tensor | None = None) -> Decoded:
    """A decoder pass that answers with ``logits [N, 4, h, w]``, with tokens of width one and nothing in them."""
    count = len(logits)
    none = torch.zeros(count, 4, 1)
    iou, pixels = none[..., 0] if iou is None else iou, logits[:, :1] if pixels is None else pixels
    return Decoded(logits, iou, none[:, 0], none, pixels, none)


def with_head(
    body: Backbone, config: HeadConfig | None = None, *, seed=3, noise=0.0, scale: float | None = None
) -> UncertainSam:
    """`body` with a head, in eval mode. noise: how far its weights are from their start; scale: log of its logit's."""
    torch.manual_seed(seed)
    head = build_head(config or BayesianConfig(), token_dim=body.token_dim, channels=body.channels)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += noise * torch.randn_like(parameter)
        if scale is not None:
            head.log_scale.fill_(scale)
    return UncertainSam(body, head.requires_grad_(False)).eval()


def save_backbone(body: Backbone, folder: Path) -> BackboneConfig:
    """Write ``nano.safetensors`` and the ``backbone.yaml`` that names it; returns what that says."""
    save_file(body.sam.state_dict(), folder / "nano.safetensors")
    spec = BackboneConfig(kind="nano", checkpoint=str(folder / "nano.safetensors"), image_size=body.image_size)
    (folder / "backbone.yaml").write_text(yaml.safe_dump(vars(spec)))
    return spec


def export_with_backbone_beside(model: UncertainSam, spec: BackboneConfig, out: Path, **about) -> Path:
    """A head-only export, with the file of its backbone in the same folder, where it may be named."""
    export_model(model, replace(spec, checkpoint="nano.safetensors"), out, with_backbone=False, **about)
    shutil.copy(spec.checkpoint, out / "nano.safetensors")
    return out


def mask_of(text: str) -> np.ndarray:
    """``"##. .#."`` as a mask: a word is a row, # is the object."""
    return np.array([[c == "#" for c in line] for line in text.split()])


def rle_of(mask: np.ndarray) -> dict:
    """COCO's compressed RLE, as it stands in JSON."""
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


def sample_of(truth: np.ndarray) -> Sample:
    """A black picture with one object."""
    return Sample(Record("0", Path("0"), ("1",)), np.zeros((*truth.shape, 3), np.uint8), truth[None])


def memory_blocks(dim: int, seed=11) -> MemoryBlocks:
    """SAM 2's layers of memory, with random weights."""
    torch.manual_seed(seed)
    return MemoryBlocks(
        MaskDownSampler(dim, kernel_size=3, stride=2, padding=1, total_stride=16),
        nn.Conv2d(dim, dim, 1),
        Fuser(CXBlock(dim), num_layers=2),
    )


def three_objects(batch: int, side: int) -> tuple[Tensor, Tensor]:
    """Masks ``[batch, 3, side, side]``, two overlap and the third is padding in the last image; and which are valid."""
    masks = torch.zeros(batch, 3, side, side)
    masks[:, 0, 4:30, 4:30] = 1
    masks[:, 1, 20:44, 16:40] = 1
    masks[:, 2, 50:60, 44:62] = 1
    valid = torch.ones(batch, 3, dtype=torch.bool)
    masks[-1, 2], valid[-1, 2] = 0, False
    return masks, valid
