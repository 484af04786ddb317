"""The only door to the `sam2` package: the official models, and the parts small models are made of.

`import sam2` initialises Hydra's global state when nobody has done so before, and the caller's own
``hydra.initialize`` or ``@hydra.main`` would then fail. That state is cleared again here. A state set
by the caller, or by the caller's own earlier ``import sam2``, is left as it is.
"""

import sys
from importlib.resources import files

from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ruac.backbone.names import official
from ruac.base.errors import RuacError

_hydra_was_free = not GlobalHydra.instance().is_initialized() and "sam2" not in sys.modules

from sam2.modeling.backbones.hieradet import Hiera  # noqa: E402
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder  # noqa: E402
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder  # noqa: E402
from sam2.modeling.position_encoding import PositionEmbeddingSine  # noqa: E402
from sam2.modeling.sam.mask_decoder import MaskDecoder  # noqa: E402
from sam2.modeling.sam.prompt_encoder import PromptEncoder  # noqa: E402
from sam2.modeling.sam.transformer import TwoWayTransformer  # noqa: E402
from sam2.modeling.sam2_base import SAM2Base  # noqa: E402
from sam2.sam2_image_predictor import SAM2ImagePredictor  # noqa: E402
from sam2.sam2_video_predictor import SAM2VideoPredictor  # noqa: E402

if _hydra_was_free:
    GlobalHydra.instance().clear()

__all__ = [
    "CXBlock",
    "FpnNeck",
    "Fuser",
    "Hiera",
    "ImageEncoder",
    "MaskDecoder",
    "MaskDownSampler",
    "MemoryEncoder",
    "PositionEmbeddingSine",
    "PromptEncoder",
    "SAM2Base",
    "SAM2ImagePredictor",
    "SAM2VideoPredictor",
    "TwoWayTransformer",
    "build_official",
    "video_predictor",
]

_STRIDE = 32  # of the coarsest feature map; the side of an image must be a multiple of it


def build_official(size: str, *, image_size: int = 1024) -> SAM2Base:
    """The official SAM 2.1 of `size` (tiny, small, base_plus, large) on the CPU, in eval mode, with random weights.

    The model is the one of the packaged YAML: no fallback for unstable masks, no filling of holes. Its
    parameters do not depend on `image_size` (pixels, the side of the square input).

    Raises `RuacError` for an unknown size or an `image_size` that is not a positive multiple of 32.
    """
    if image_size < _STRIDE or image_size % _STRIDE:
        raise RuacError(f"image_size {image_size}: expected a positive multiple of {_STRIDE}")
    config = _packaged_config(official(size).config)
    config.image_size = image_size
    grid = [image_size // 16, image_size // 16]
    layer = config.memory_attention.layer
    layer.self_attention.feat_sizes = layer.cross_attention.feat_sizes = grid
    # The warm-up would fill caches on a GPU that the model may never be moved to.
    for encoding in (config.image_encoder.neck.position_encoding, config.memory_encoder.position_encoding):
        encoding.warmup_cache = False
    return instantiate(config).eval()


def video_predictor(sam: SAM2Base) -> SAM2VideoPredictor:
    """SAM 2's own video predictor over the modules of `sam`, which it shares; nothing is copied or loaded again.

    As the packaged YAML has it: masks may overlap and holes are not filled, as in `build_official`.
    """
    video = SAM2VideoPredictor.__new__(SAM2VideoPredictor)
    video.__dict__.update(sam.__dict__)
    video.fill_hole_area, video.non_overlap_masks = 0, False
    video.clear_non_cond_mem_around_input = video.add_all_frames_to_correct_as_cond = False
    return video


def _packaged_config(name: str) -> DictConfig:
    path = files("sam2") / "configs" / "sam2.1" / name
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RuacError(f"{path}: not in the installed sam2 package; expected sam2 1.1.0 or newer") from None
    return OmegaConf.create(text).model
