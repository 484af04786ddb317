"""MobileNetV2 as an image-encoder trunk: four maps, finest first, and no batch norm."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ruac.base.errors import RuacError, brief

# Last block of each stride (4, 8, 16, 32) in torchvision's numbering and its channels.
STAGE_ENDS = (3, 6, 13, 17)
CHANNELS = (24, 32, 96, 320)
# Standard deviation of the ImageNet trunk's maps on photographs, coarsest first.
DEVIATIONS = (2.3, 5.3, 7.0, 7.5)


class MobileNetV2Trunk(nn.Module):
    """torchvision's MobileNetV2 up to its last block, batch norms folded into the convolutions.

    Folding makes the trunk independent of the batch, which few-image batches need, and saves
    half of the elementwise passes. `channel_list` (coarsest first) is what `FpnNeck` expects.
    """

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import mobilenet_v2

        features = mobilenet_v2(weights=None).features[: STAGE_ENDS[-1] + 1]
        self.features = _fold_batch_norm(features.eval())
        self.channel_list = list(reversed(CHANNELS))
        self.deviations = DEVIATIONS

    def forward(self, images: Tensor) -> list[Tensor]:
        """``[B, 3, S, S]`` to maps at strides 4, 8, 16, 32 with 24, 32, 96, 320 channels."""
        maps = []
        for index, block in enumerate(self.features):
            images = block(images)
            if index in STAGE_ENDS:
                maps.append(images)
        return maps


def load_imagenet_trunk(trunk: MobileNetV2Trunk, path: str | Path) -> None:
    """Load an ImageNet trunk (safetensors, torchvision's names with batch norms) into `trunk`.

    Raises `RuacError` when the file is missing or its tensors are not those of MobileNetV2.
    """
    from torchvision.models import mobilenet_v2

    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    except Exception as error:
        raise RuacError(f"{path}: cannot be read as safetensors: {brief(error)}") from error
    whole = mobilenet_v2(weights=None)
    names = {name for name in whole.state_dict() if name.startswith("features.") and "num_batches" not in name}
    last = f"features.{STAGE_ENDS[-1] + 1}."
    missing = sorted(n for n in names - set(tensors) if not n.startswith(last))
    if missing:
        raise RuacError(f"{path}: not a MobileNetV2 trunk: {len(missing)} tensors missing, first {missing[0]}")
    try:
        whole.load_state_dict(tensors, strict=False)  # the classifier is not wanted; completeness was checked above
    except RuntimeError as error:
        raise RuacError(f"{path}: not a MobileNetV2 trunk: {brief(error)}") from error
    folded = _fold_batch_norm(whole.features[: STAGE_ENDS[-1] + 1].eval())
    trunk.features.load_state_dict(folded.state_dict())


def _fold_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every convolution followed by a batch norm with one convolution with bias, in place."""
    for sequence in [part for part in module.modules() if isinstance(part, nn.Sequential)]:
        for index in range(len(sequence) - 1):
            if isinstance(sequence[index], nn.Conv2d) and isinstance(sequence[index + 1], nn.BatchNorm2d):
                with torch.no_grad():
                    sequence[index] = fuse_conv_bn_eval(sequence[index], sequence[index + 1])
                sequence[index + 1] = nn.Identity()
    return module
