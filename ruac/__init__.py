"""Robust uncertainty-accuracy correlation for Segment Anything 2."""

from ruac.torchvision_shim import ensure_torchvision

# sam2, torchmetrics and accelerate all import torchvision: it must be mended before any of them.
ensure_torchvision()

from ruac.version import VERSION as __version__  # noqa: E402

__all__ = ["__version__"]
