"""Where configs and embedded checkpoints lie: in the checkout, or in an installed package, where the build put them."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def asset_root() -> Path:
    """The folder that holds ``configs/`` and ``checkpoints/``."""
    checkout = _PACKAGE.parent
    return checkout if (checkout / "pyproject.toml").is_file() else _PACKAGE / "assets"
