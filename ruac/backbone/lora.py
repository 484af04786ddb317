"""LoRA in the image encoder (Hu et al., 2022), by peft: a control that trains what RUAC leaves frozen."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ruac.backbone.backbone import Backbone
from ruac.base.errors import RuacError


@dataclass
class LoraConfig:
    """rank: of the updates; 0 is no LoRA. alpha: updates are scaled by alpha / rank."""

    rank: int = 0
    alpha: float = 16.0

    def validate(self) -> None:
        if self.rank < 0:
            raise RuacError(f"lora.rank: {self.rank}, expected at least 0")
        if not self.alpha > 0:
            raise RuacError(f"lora.alpha: {self.alpha}, expected a positive number")


def add_lora(backbone: Backbone, config: LoraConfig) -> nn.Module:
    """Add low-rank updates to the encoder's trunk, in place; returns them, trainable and 0 at first.

    Hiera gets them in the qkv and proj layers of every attention; a trunk without attention (MobileNetV2 of the
    nano) in its 1x1 convolutions, the layers that mix channels as those do. Raises `RuacError` without peft.
    """
    try:
        import peft
    except ImportError as error:
        raise RuacError("lora.rank: LoRA needs the package peft; pip install 'ruac[controls]'") from error
    trunk = _trunk(backbone)
    targets = [name for name, _ in trunk.named_modules() if name.endswith((".attn.qkv", ".attn.proj"))]
    targets = targets or [name for name, module in trunk.named_modules() if _is_pointwise(module)]
    settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets)
    peft.inject_adapter_in_model(settings, trunk)
    layers = {name.replace(".", "/"): module for name, module in trunk.named_modules() if name in set(targets)}
    return nn.ModuleDict(
        {name: nn.ModuleList([layer.lora_A["default"], layer.lora_B["default"]]) for name, layer in layers.items()}
    )


def merge_lora(backbone: Backbone) -> None:
    """Add the updates to the weights, in place, which then have their old names and shapes; without LoRA nothing."""
    trunk = _trunk(backbone)
    for name, layer in [(name, module) for name, module in trunk.named_modules() if hasattr(module, "lora_A")]:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(trunk.get_submodule(parent), child, layer.get_base_layer())


def _trunk(backbone: Backbone) -> nn.Module:
    encoder = backbone.sam.image_encoder
    return getattr(encoder, "trunk", encoder)  # SAM 1's encoder has no neck around it


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
