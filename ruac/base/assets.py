"""Where configs and embedded checkpoints lie: in the checkout, or in an installed package, where the build put them."""

from __future__ import annotations

import difflib
from pathlib import Path

from ruac.base.errors import RuacError

_PACKAGE = Path(__file__).resolve().parents[1]


def asset_root() -> Path:
    """The folder that holds ``configs/`` and ``checkpoints/``."""
    checkout = _PACKAGE.parent
    return checkout if (checkout / "pyproject.toml").is_file() else _PACKAGE / "assets"


def asset_path(given: str | Path) -> Path:
    """`given` where it exists or is absolute; else the same path among the package's own files, if it is there."""
    given = Path(given)
    own = asset_root() / given
    return own if not given.exists() and own.is_file() else given


def named_config(given: str | Path, kind: str) -> Path:
    """The YAML file that `given` means: a path, or the bare name of one in ``configs/KIND/``.

    A file of the caller's own goes before a name. Raises `RuacError` for a name that there is not.
    """
    path = asset_path(given)
    if path.is_file() or len(path.parts) > 1 or path.suffix:
        return path
    folder = asset_root() / "configs" / kind
    if (own := folder / f"{path}.yaml").is_file():
        return own
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    near = difflib.get_close_matches(str(path), names, n=1, cutoff=0.0)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise RuacError(f"{given}: neither a YAML file nor a config in {folder}{hint}")
