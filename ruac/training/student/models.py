"""Segmenters from libraries, cut where features can be disturbed: `encode`, then `decode`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.backbone.mobilenet import CHANNELS, MobileNetV2Trunk, load_imagenet_trunk
from ruac.base.errors import RuacError, brief


@dataclass
class ModelConfig:
    """kind: ``mobilenet_v2``, the embedded models' small trunk below torchvision's LR-ASPP head; ``lraspp`` and
    ``deeplabv3`` of torchvision; ``segformer`` of transformers."""

    KIND: ClassVar[str] = "kind"
    KINDS: ClassVar[dict[str, type[ModelConfig]]] = {}
    FLAT: ClassVar[tuple[str, ...]] = ("trunk_weights", "backbone", "widths")  # no older version had them all
    kind: str = "mobilenet_v2"


@dataclass
class MobileNetConfig(ModelConfig):
    """trunk_weights: an ImageNet trunk as safetensors (torchvision's names), or empty. width: of the head."""

    kind: str = "mobilenet_v2"
    trunk_weights: str = ""
    width: int = 64

    def validate(self) -> None:
        if self.width < 1:
            raise RuacError(f"model.width: {self.width}, expected at least 1")


@dataclass
class LrasppConfig(ModelConfig):
    """MobileNetV3 with LR-ASPP. pretrained: fetch torchvision's ImageNet weights of the trunk."""

    kind: str = "lraspp"
    pretrained: bool = False


@dataclass
class DeepLabConfig(ModelConfig):
    """DeepLabV3 (torchvision has no V3+). backbone: mobilenet_v3_large, resnet50 or resnet101. pretrained: fetch
    torchvision's ImageNet weights of the trunk."""

    kind: str = "deeplabv3"
    backbone: str = "mobilenet_v3_large"
    pretrained: bool = False

    def validate(self) -> None:
        if self.backbone not in (known := ("mobilenet_v3_large", "resnet50", "resnet101")):
            raise RuacError(f"model.backbone: {self.backbone!r}, expected {' or '.join(known)}")


@dataclass
class SegformerConfig(ModelConfig):
    """pretrained: a name or folder that transformers loads, such as nvidia/mit-b0; else random weights of the four
    `widths` and `depths`. width: of the decoder without `pretrained`."""

    kind: str = "segformer"
    pretrained: str = ""
    widths: list[int] = field(default_factory=lambda: [16, 32, 64, 128])
    depths: list[int] = field(default_factory=lambda: [1, 1, 1, 1])
    width: int = 64

    def validate(self) -> None:
        if len(self.widths) != 4 or len(self.depths) != 4:
            raise RuacError(f"model: {len(self.widths)} widths and {len(self.depths)} depths, expected 4 each")


class Segmenter(nn.Module):
    """``[B, 3, S, S]`` normalised to logits ``[B, K, S, S]``.

    trunk: pictures to a list of feature maps. head: those maps to logits of any size. What lies between is where
    UniMatch disturbs features. Parameters of `head` are new, those of `trunk` may be pretrained.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module):
        super().__init__()
        self.trunk, self.head = trunk, head

    def encode(self, images: Tensor) -> list[Tensor]:
        return list(self.trunk(images))

    def decode(self, maps: list[Tensor], side: int) -> Tensor:
        return F.interpolate(self.head(maps).float(), (side, side), mode="bilinear", align_corners=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images), images.shape[-1])


class _Mobile(nn.Module):
    """Stride 8 of the trunk without batch norm, and strides 16 and 32 together, on the grid of the former."""

    def __init__(self, config: MobileNetConfig):
        super().__init__()
        trunk = MobileNetV2Trunk()
        if config.trunk_weights:
            load_imagenet_trunk(trunk, config.trunk_weights)
        self.trunk = trunk.requires_grad_(True)  # folding leaves the biases frozen

    def forward(self, images: Tensor) -> list[Tensor]:
        _, low, middle, high = self.trunk(images)
        high = F.interpolate(high, middle.shape[-2:], mode="bilinear", align_corners=False)
        return [low, torch.cat([middle, high], dim=1)]


class _Lraspp(nn.Module):
    """torchvision's LR-ASPP head over a list of maps, of which it reads the first and the last."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.head({"low": maps[0], "high": maps[-1]})


class _Named(nn.Module):
    """A torchvision trunk whose named maps become a list."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.trunk(images).values())


class _Last(nn.Module):
    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.head(maps[-1])


class _Hidden(nn.Module):
    """transformers' encoder, all four stages."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.trunk(images, output_hidden_states=True, return_dict=True).hidden_states)


def _mobilenet(config: MobileNetConfig, classes: int) -> Segmenter:
    from torchvision.models.segmentation.lraspp import LRASPPHead

    return Segmenter(_Mobile(config), _Lraspp(LRASPPHead(CHANNELS[1], sum(CHANNELS[2:]), classes, config.width)))


def _lraspp(config: LrasppConfig, classes: int) -> Segmenter:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    weights = "DEFAULT" if config.pretrained else None
    model = _fetched(lambda: lraspp_mobilenet_v3_large(weights=None, weights_backbone=weights, num_classes=classes))
    return Segmenter(_Named(model.backbone), _Lraspp(model.classifier))


def _deeplab(config: DeepLabConfig, classes: int) -> Segmenter:
    from torchvision.models import segmentation

    build = getattr(segmentation, f"deeplabv3_{config.backbone}")
    weights = "DEFAULT" if config.pretrained else None
    model = _fetched(lambda: build(weights=None, weights_backbone=weights, num_classes=classes))
    return Segmenter(_Named(model.backbone), _Last(model.classifier))


def _segformer(config: SegformerConfig, classes: int) -> Segmenter:
    try:
        from transformers import SegformerConfig as Settings
        from transformers import SegformerForSemanticSegmentation as Model
    except ImportError:
        raise RuacError("model.kind: segformer needs transformers: pip install 'ruac[transformers]'") from None

    if config.pretrained:
        model = _fetched(
            lambda: Model.from_pretrained(config.pretrained, num_labels=classes, ignore_mismatched_sizes=True)
        )
    else:
        settings = Settings(
            hidden_sizes=config.widths,
            depths=config.depths,
            decoder_hidden_size=config.width,
            num_labels=classes,
        )
        model = Model(settings)
    return Segmenter(_Hidden(model.segformer), model.decode_head)


def _fetched(load: Callable[[], Any]) -> Any:
    """What a library loads. Whatever goes wrong with a download or a folder is an `RuacError`."""
    try:
        return load()
    except (OSError, ValueError, RuntimeError) as error:
        raise RuacError(f"model.pretrained: cannot be loaded: {brief(error)}") from error


_BUILDERS: dict[type[ModelConfig], Callable[[Any, int], Segmenter]] = {
    MobileNetConfig: _mobilenet,
    LrasppConfig: _lraspp,
    DeepLabConfig: _deeplab,
    SegformerConfig: _segformer,
}
ModelConfig.KINDS = {config.kind: config for config in _BUILDERS}


def build_segmenter(config: ModelConfig, classes: int) -> Segmenter:
    """The model that `config` names, for so many classes. Raises `RuacError` for weights that cannot be had."""
    return _BUILDERS[type(config)](config, classes)
