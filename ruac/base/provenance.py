"""What makes a number repeatable: the resolved config, the versions and the commit of a run."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ruac.base.config import save_config
from ruac.base.files import write_text
from ruac.base.version import VERSION

PACKAGES = ("torch", "torchvision", "sam2", "kornia", "accelerate", "numpy", "scipy", "safetensors")


def environment() -> dict[str, Any]:
    """Versions, device and git commit (with ``+changes`` when the working tree differs from it)."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "ruac": VERSION,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "versions": versions,
    }


def save_record(out: Path, run_config: Any) -> None:
    """Write ``config.yaml`` and ``environment.json`` (with the command line) into the run's folder."""
    save_config(run_config, out / "config.yaml")
    record = environment() | {"command": " ".join(Path(a).name if i == 0 else a for i, a in enumerate(sys.argv))}
    write_text(out / "environment.json", json.dumps(record, indent=2) + "\n")


def _commit() -> str:
    """The commit of the checkout the package lives in, or "unknown" for an installed copy."""
    root = Path(__file__).resolve().parents[2]
    try:
        run = lambda *a: subprocess.run(["git", "-C", str(root), *a], capture_output=True, text=True, check=True)  # noqa: E731
        changed = run("status", "--porcelain", "--untracked-files=no").stdout.strip()
        return run("rev-parse", "HEAD").stdout.strip() + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def settings_of(config: Any) -> dict[str, Any]:
    """A dataclass config as what tells models apart, for a hash.

    A field that came later, ``field(default=..., metadata={"later": True})``, is left out at its default, which is what
    was done before there was a choice: fits and results of an older version stay those of the same model.
    """
    later = {each.name: each.default for each in fields(config) if each.metadata.get("later")}
    return {name: value for name, value in asdict(config).items() if name not in later or value != later[name]}
