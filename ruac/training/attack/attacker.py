"""One attack of the adversarial branch: stress, style, degradations, pixels, a deformation, and the features' style.

Each is optional, and they act in this order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.base.errors import RuacError
from ruac.data.synthetic.stress import StressConfig
from ruac.training.attack.deformation import (
    DeformationAttacker,
    DeformationConfig,
    MemoryBlocks,
    RandomDeformation,
)
from ruac.training.attack.degradations import DegradationAttacker, DegradationConfig, RandomDegradation
from ruac.training.attack.feature_style import FeatureStyle, MixStyle, UncertainStyle
from ruac.training.attack.procedural import ProceduralStress
from ruac.training.attack.reversal import reverse_gradient
from ruac.training.attack.style import RandomStyle, StyleAttacker, StyleConfig

ATTACK_KINDS = (
    "none",
    "learned",
    "noise",
    "pgd",
    "patch",
    "mixstyle",
    "dsu",
    "random_style",
    "random_deformation",
    "random",
    "stress",
)

OBJECTIVES = {"total": None, "score": "scoring", "alignment": "alignment"}
"""What learned attackers climb: the name of the loss term, None for their sum."""

LossFunction = Callable[[Tensor], Tensor]


@dataclass
class AttackConfig:
    """kind: ``learned`` style and deformation attackers (see use_style, use_deformation), or a baseline:
    ``none``, Gaussian ``noise``, ``pgd``, adversarial ``patch``, ``mixstyle`` and ``dsu`` on features,
    ``random_style``, ``random_deformation``, ``random``: style, noise and deformation at random, with the
    learned ones' bounds, or ``stress``: procedural shifts, as strong as a real domain.

    use_degradations: of ``learned`` and ``random``, blur, haze and the like, for a reach beyond the paper's. objective:
    what learned attackers climb: ``total``, the whole loss of the adversarial branch, or one term of it alone, the
    proper ``score`` or the ``alignment`` loss.

    noise_sigma, pgd_step, pgd_epsilon are in normalised image units, patch_side is a share of the image side.
    feature_probability: of an image's features to be restyled. mixstyle_alpha: of the Beta distribution.
    """

    kind: str = "learned"
    use_style: bool = True
    use_deformation: bool = True
    use_degradations: bool = False
    objective: str = "total"
    style: StyleConfig = field(default_factory=StyleConfig)
    degradations: DegradationConfig = field(default_factory=DegradationConfig)
    deformation: DeformationConfig = field(default_factory=DeformationConfig)
    stress: StressConfig = field(default_factory=StressConfig)
    noise_sigma: float = 0.03
    pgd_steps: int = 5
    pgd_step: float = 0.01
    pgd_epsilon: float = 0.03
    patch_side: float = 0.1
    feature_probability: float = 0.5
    mixstyle_alpha: float = 0.1

    def validate(self) -> None:
        if self.kind not in ATTACK_KINDS:
            raise RuacError(f"attack.kind: expected one of {', '.join(ATTACK_KINDS)}, found '{self.kind}'")
        if self.kind == "learned" and not (self.use_style or self.use_deformation or self.use_degradations):
            raise RuacError(
                "attack.use_style, use_deformation, use_degradations: expected at least one for attack.kind=learned"
            )
        if self.use_degradations and self.kind not in ("learned", "random"):
            raise RuacError(f"attack.use_degradations: true with kind {self.kind}, expected learned or random")
        if self.objective not in OBJECTIVES:
            raise RuacError(f"attack.objective: {self.objective!r}, expected one of {', '.join(OBJECTIVES)}")
        for key in ("noise_sigma", "pgd_step", "pgd_epsilon"):
            if getattr(self, key) < 0:
                raise RuacError(f"attack.{key}: expected a value >= 0, found {getattr(self, key)}")
        if self.pgd_steps < 1:
            raise RuacError(f"attack.pgd_steps: expected at least 1, found {self.pgd_steps}")
        if not 0 < self.patch_side <= 1:
            raise RuacError(f"attack.patch_side: expected a share of the image side in (0, 1], found {self.patch_side}")
        if not 0 < self.feature_probability <= 1:
            raise RuacError(f"attack.feature_probability: expected a value in (0, 1], found {self.feature_probability}")
        if not self.mixstyle_alpha > 0:
            raise RuacError(f"attack.mixstyle_alpha: expected a value above 0, found {self.mixstyle_alpha}")


class Attacked(NamedTuple):
    """images: ``[B, 3, S, S]``. masks: ``[B, K, S, S]`` in {0, 1}, constants. strength: detached scalars for the log:

    ``image_change`` mean absolute change of the normalised image, ``style_change`` the part made before the
    deformation, ``offset_pixels`` mean absolute displacement along an axis over the objects' pixels,
    ``mask_change`` share of the valid objects' old pixels that changed sides.
    """

    images: Tensor
    masks: Tensor
    strength: dict[str, Tensor]


class GaussianNoise(nn.Module):
    """Independent noise on every value."""

    def __init__(self, sigma: float):
        super().__init__()
        self.sigma = sigma

    def forward(self, images: Tensor, loss_fn: LossFunction | None) -> Tensor:
        return images + self.sigma * torch.randn_like(images)


class ProjectedGradient(nn.Module):
    """PGD (Madry et al., 2018) in the l_inf ball: signed steps up the loss from a random start, no parameters."""

    def __init__(self, steps: int, step: float, epsilon: float):
        super().__init__()
        self.steps, self.step, self.epsilon = steps, step, epsilon

    def forward(self, images: Tensor, loss_fn: LossFunction | None) -> Tensor:
        if loss_fn is None:
            raise ValueError("attack kind 'pgd' needs loss_fn(images) -> scalar")
        images = images.detach()
        delta = self.epsilon * (2 * torch.rand_like(images) - 1)
        for _ in range(self.steps):
            with torch.enable_grad():
                delta.requires_grad_(True)
                (slope,) = torch.autograd.grad(loss_fn(images + delta), delta)
            delta = (delta.detach() + self.step * slope.sign()).clamp(-self.epsilon, self.epsilon)
        return images + delta


class AdversarialPatch(nn.Module):
    """One learned texture, pasted at a random place of every image, behind gradient reversal (Brown et al., 2017)."""

    RESOLUTION = 32
    AMPLITUDE = 1.8  # every colour within +-1.8 normalised units can be shown on a screen

    def __init__(self, side: float):
        super().__init__()
        self.side = side
        self.texture = nn.Parameter(torch.randn(3, self.RESOLUTION, self.RESOLUTION))

    def forward(self, images: Tensor, loss_fn: LossFunction | None) -> Tensor:
        batch, size = len(images), images.shape[-1]
        side = max(1, round(self.side * size))
        texture = reverse_gradient(self.AMPLITUDE * torch.tanh(self.texture)).to(images.dtype)
        patch = F.interpolate(texture[None], size=(side, side), mode="bilinear", align_corners=False)[0]
        corner = torch.randint(size - side + 1, (batch, 2, 1), device=images.device)
        place = torch.arange(size, device=images.device) - corner  # [B, 2, S], pixel -> patch pixel
        inside = (place >= 0) & (place < side)
        rows, columns = place.clamp(0, side - 1).unbind(1)  # [B, S] each
        canvas = patch[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)  # [B, 3, S, S]
        return torch.where((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], canvas, images)


class Attacker(nn.Module):
    """Stress, style, degradations, pixels and deformation of an image in turn; then, once it is encoded, the style of
    its features. All that is learned reads the clean features.
    """

    def __init__(
        self,
        *,
        stress: ProceduralStress | None = None,
        style: StyleAttacker | RandomStyle | None = None,
        degradations: DegradationAttacker | RandomDegradation | None = None,
        pixels: GaussianNoise | ProjectedGradient | AdversarialPatch | None = None,
        deformation: DeformationAttacker | RandomDeformation | None = None,
        features: FeatureStyle | None = None,
    ):
        super().__init__()
        self.stress, self.style, self.degradations, self.pixels = stress, style, degradations, pixels
        self.deformation, self.features = deformation, features

    def forward(
        self, images: Tensor, embedding: Tensor, masks: Tensor, valid: Tensor, *, loss_fn: LossFunction | None = None
    ) -> Attacked:
        """Attack a batch.

        images: float ``[B, 3, S, S]``, ImageNet-normalised. embedding: clean stride-16 features
        ``[B, D, S/16, S/16]``, detached inside. masks: ``[B, K, S, S]`` in {0, 1}, overlaps allowed, zero where
        an object is not `valid` (bool ``[B, K]``). loss_fn: what ``pgd`` climbs, images -> scalar.
        """
        attacked, attacked_masks, displacement = images, masks, None
        if self.stress is not None:
            attacked, attacked_masks = self.stress(images, masks, valid)
        if self.style is not None:
            attacked = self.style(attacked, embedding, attacked_masks, valid)
        if self.degradations is not None:
            attacked = self.degradations(attacked, embedding, attacked_masks, valid)
        if self.pixels is not None:
            attacked = self.pixels(attacked, loss_fn)
        before_warp = attacked
        if self.deformation is not None:
            attacked, attacked_masks, displacement = self.deformation(attacked, embedding, attacked_masks, valid)

        with torch.no_grad():
            area = masks.sum().clamp_min(1)
            strength = {
                "image_change": (attacked - images).abs().mean(),
                "style_change": (before_warp - images).abs().mean(),
                "offset_pixels": images.new_zeros(()),
                "mask_change": (attacked_masks - masks).abs().sum() / area,
            }
            if displacement is not None:
                strength["offset_pixels"] = (displacement.abs().mean(1) * masks[valid]).sum() / area
        return Attacked(attacked, attacked_masks, strength)

    def perturb_features(self, maps: list[Tensor]) -> list[Tensor]:
        """Attack the feature maps ``[B, C, h, w]`` of the attacked images, of any levels; most attacks do not."""
        return maps if self.features is None else self.features(maps)


def build_attacker(
    config: AttackConfig, *, feature_dim: int = 256, memory_blocks: MemoryBlocks | None = None
) -> Attacker:
    """The attacker that `config` describes. memory_blocks: copied where a deformation is learned.

    Raises `RuacError` where they are needed and there are none.
    """
    config.validate()
    kind = config.kind
    if kind == "learned":
        if config.use_deformation and memory_blocks is None:
            raise RuacError(
                "attack.use_deformation: true, expected false: this backbone has no memory encoder to learn it with"
            )
        return Attacker(
            style=StyleAttacker(config.style, feature_dim=feature_dim) if config.use_style else None,
            degradations=DegradationAttacker(config.degradations, feature_dim=feature_dim)
            if config.use_degradations
            else None,
            deformation=DeformationAttacker(config.deformation, memory_blocks, feature_dim=feature_dim)
            if config.use_deformation
            else None,
        )
    pixels = {
        "noise": lambda: GaussianNoise(config.noise_sigma),
        "random": lambda: GaussianNoise(config.noise_sigma),
        "pgd": lambda: ProjectedGradient(config.pgd_steps, config.pgd_step, config.pgd_epsilon),
        "patch": lambda: AdversarialPatch(config.patch_side),
    }
    features = {
        "mixstyle": lambda: MixStyle(config.feature_probability, config.mixstyle_alpha),
        "dsu": lambda: UncertainStyle(config.feature_probability),
    }
    return Attacker(
        stress=ProceduralStress(config.stress) if kind == "stress" else None,
        style=RandomStyle(config.style) if kind in ("random_style", "random") else None,
        degradations=RandomDegradation(config.degradations) if config.use_degradations else None,
        pixels=pixels[kind]() if kind in pixels else None,
        deformation=RandomDeformation(config.deformation) if kind in ("random_deformation", "random") else None,
        features=features[kind]() if kind in features else None,
    )
