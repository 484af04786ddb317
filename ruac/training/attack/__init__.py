"""Attackers of the adversarial branch: style and deformation behind gradient reversal, and their baselines."""

from ruac.training.attack.attacker import ATTACK_KINDS, OBJECTIVES, AttackConfig, Attacked, Attacker, build_attacker
from ruac.training.attack.deformation import (
    DeformationAttacker,
    DeformationConfig,
    Deformed,
    MemoryBlocks,
    RandomDeformation,
)
from ruac.training.attack.degradations import DegradationAttacker, DegradationConfig, RandomDegradation
from ruac.training.attack.feature_style import FeatureStyle, MixStyle, UncertainStyle
from ruac.training.attack.graph import GraphConfig, ObjectGraphNetwork, object_graph
from ruac.training.attack.reversal import reverse_gradient
from ruac.training.attack.style import STYLE_VARIANTS, RandomStyle, StyleAttacker, StyleConfig

__all__ = [
    "ATTACK_KINDS",
    "OBJECTIVES",
    "STYLE_VARIANTS",
    "AttackConfig",
    "Attacked",
    "Attacker",
    "DeformationAttacker",
    "DeformationConfig",
    "Deformed",
    "DegradationAttacker",
    "DegradationConfig",
    "FeatureStyle",
    "GraphConfig",
    "MemoryBlocks",
    "MixStyle",
    "ObjectGraphNetwork",
    "RandomDeformation",
    "RandomDegradation",
    "RandomStyle",
    "StyleAttacker",
    "StyleConfig",
    "UncertainStyle",
    "build_attacker",
    "object_graph",
    "reverse_gradient",
]
