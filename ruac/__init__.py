"""Robust uncertainty-accuracy correlation for Segment Anything 2."""

from typing import TYPE_CHECKING, Any

from ruac.base.torchvision_shim import watch_torchvision
from ruac.base.version import VERSION as __version__

# sam2, torchmetrics and accelerate all import torchvision: it is mended in whichever of them comes first.
watch_torchvision()

if TYPE_CHECKING:
    from ruac.inference.predictor import Predictor

__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """``ruac.Predictor``, imported at its first use: it brings SAM 2 with it, which the tools' help does not need."""
    if name == "Predictor":
        from ruac.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
