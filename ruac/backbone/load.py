"""Backbones by name or YAML file."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import torch

from ruac.backbone.backbone import Backbone
from ruac.backbone.checkpoint import load_official
from ruac.backbone.names import OFFICIAL
from ruac.backbone.nano import Nano, load_nano
from ruac.backbone.sam1 import MEDSAM, load_sam1, sam1_backbone
from ruac.backbone.sam2_parts import build_official
from ruac.base.assets import asset_root
from ruac.base.config import load_record
from ruac.base.errors import RuacError

KINDS = ("nano", *OFFICIAL, "medsam_lite")
ROOT = asset_root()


@dataclass
class BackboneConfig:
    """kind: nano, tiny, small, base_plus, large or medsam_lite. checkpoint: a file; relative paths are looked up
    from the working folder, then from the project's; for medsam_lite
    "package" is what its package holds. image_size: side of the square input in pixels, a multiple of 32."""

    kind: str = "nano"
    checkpoint: str = "checkpoints/nano.safetensors"
    image_size: int = 256

    def validate(self) -> None:
        if self.kind not in KINDS:
            raise RuacError(f"backbone kind {self.kind!r}: expected one of {', '.join(KINDS)}")
        if not 32 <= self.image_size <= 8192:
            raise RuacError(f"backbone image_size {self.image_size}: expected at least 32 and at most 8192")


def backbone_config(spec: str) -> BackboneConfig:
    """Read `spec`: one of the names in ``configs/backbone/`` or the path of a YAML file."""
    names = {file.stem: file for file in sorted((ROOT / "configs" / "backbone").glob("*.yaml"))}
    if spec in names or Path(spec).suffix in (".yaml", ".yml"):
        return load_record(BackboneConfig, names.get(spec, spec))
    near = difflib.get_close_matches(spec, names, n=1, cutoff=0.0)[0]
    known = f"expected one of {', '.join(names)}, or the path of a YAML file"
    raise RuacError(f"backbone {spec!r}: {known}; did you mean '{near}'?")


def backbone_name(config: BackboneConfig) -> str | None:
    """The name in ``configs/backbone/`` of that checkpoint, so that it can be found without a path of anybody's own."""
    for path in sorted((ROOT / "configs" / "backbone").glob("*.yaml")):
        own = load_record(BackboneConfig, path)
        if (own.kind, own.checkpoint) == (config.kind, config.checkpoint):
            return path.stem
    return None


def build_backbone(config: BackboneConfig) -> Backbone:
    """The backbone of `config` with random weights, for loading into or for tests."""
    backbone = _built(config)
    backbone.config = config
    return backbone


def _built(config: BackboneConfig) -> Backbone:
    if config.kind == "nano":
        return Backbone(Nano(image_size=config.image_size), name="nano")
    if config.kind == "medsam_lite":
        from ruac.backbone.medsam_parts import build_medsam  # an extra

        return sam1_backbone(build_medsam(), config.image_size, name=config.kind, spec=MEDSAM)
    return Backbone(build_official(config.kind, image_size=config.image_size), name=config.kind)


def load_backbone(spec: str | BackboneConfig) -> Backbone:
    """Build a backbone and load its checkpoint strictly; frozen, in eval mode, on the CPU.

    Raises `RuacError` for an unknown name, a missing checkpoint (saying how to get it) or one that
    does not fit.
    """
    config = backbone_config(spec) if isinstance(spec, str) else spec
    path = checkpoint_path(config)
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn and thrown away
        backbone = build_backbone(config)
    if config.kind == "nano":
        load_nano(backbone.sam, path)
    elif config.kind == "medsam_lite":
        load_sam1(backbone.sam, path)
    else:
        load_official(backbone.sam, path, config.kind)
    return backbone.freeze()


def checkpoint_path(config: BackboneConfig) -> Path:
    """Where the checkpoint of `config` lies. Raises `RuacError` if it does not exist."""
    if config.kind == "medsam_lite" and config.checkpoint == "package":
        from ruac.backbone.medsam_parts import medsam_weights  # an extra

        return medsam_weights()
    given = Path(config.checkpoint)
    for path in (given, ROOT / given):
        if path.is_file():
            return path
    hint = "" if config.kind == "nano" else f"; fetch it with: ruac fetch-checkpoint {config.kind}"
    raise RuacError(f"{given}: checkpoint of backbone {config.kind} not found{hint}")
