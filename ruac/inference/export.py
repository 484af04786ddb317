"""Exported models: a folder with ``model.safetensors`` and ``config.json``, free of training code.

A calibrated model has ``calibrator.safetensors`` beside them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ruac.backbone import BackboneConfig, build_backbone, load_backbone
from ruac.base.config import config_from
from ruac.base.errors import RuacError
from ruac.base.files import atomic_path, read_json, write_text
from ruac.base.version import VERSION
from ruac.calibration import load_calibrator
from ruac.inference.ensemble import Ensemble, EnsembleConfig
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import LooksConfig
from ruac.uncertainty import HeadConfig, build_head
from ruac.uncertainty.look_reader import LookReader, LookReaderConfig

FORMAT = 1
CONFIG, WEIGHTS, CALIBRATOR = "config.json", "model.safetensors", "calibrator.safetensors"


def export_model(
    model: UncertainSam, backbone: BackboneConfig, out: str | Path, *, with_backbone: bool, record: dict | None = None
) -> Path:
    """Write `model` to the folder `out`: head and calibrator, if any, and the backbone's weights if `with_backbone`.

    backbone: how to rebuild it. record: provenance that goes into the config. The backbone's weights
    are stored as float16 if that loses nothing in any of them, else as they are. Raises `RuacError`
    when there is neither a head nor a calibrator nor a backbone to write.
    """
    if model.head is None and model.reader is None and model.calibrator is None and not with_backbone:
        raise RuacError("export: the model has no uncertainty head; without its backbone nothing is left to export")
    if model.filters:
        raise RuacError("export: a model with filters has no export; ask `predict` for correct=True")
    tensors = {
        f"{part}.{name}": tensor
        for part, module in (("head", model.head), ("reader", model.reader))
        if module is not None
        for name, tensor in module.state_dict().items()
    }
    if with_backbone:
        tensors |= _compact({f"backbone.{name}": t for name, t in model.backbone.sam.state_dict().items()})
    config = {
        "format": FORMAT,
        "ruac": VERSION,
        "backbone": asdict(backbone),
        "backbone_included": with_backbone,
        "decoder_sha256": fingerprint(model.backbone.sam.sam_mask_decoder),
        "head": _head_entry(model.head.config if model.head else HeadConfig("none")),
        "calibrator": None if model.calibrator is None else model.calibrator.kind,
        "record": record or {},
    }
    if model.looks is not None:
        config["looks"] = asdict(model.looks)
    if model.reader is not None:
        config["reader"] = asdict(model.reader.config)
    out = Path(out)
    if model.calibrator is not None:
        model.calibrator.save(out / CALIBRATOR)
    with atomic_path(out / WEIGHTS) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    write_text(out / CONFIG, json.dumps(config, indent=2) + "\n")
    return out


def load_exported(folder: str | Path, *, backbone: str | BackboneConfig | None = None) -> UncertainSam:
    """Load an exported model, frozen and in eval mode, on the CPU.

    backbone: where to find the backbone of a head-only export (default: as recorded).

    Raises `RuacError` when the folder is no export, a tensor is missing, left over or misshapen, or
    the backbone is not the one the head was trained on, or the calibrator was fitted for.
    """
    folder = Path(folder)
    content = _read_config(folder / CONFIG)
    try:
        tensors = load_file(folder / WEIGHTS)
    except Exception as error:
        raise RuacError(f"{folder / WEIGHTS}: cannot be read as safetensors: {error}") from error
    spec = config_from(BackboneConfig, content["backbone"], f"{folder / CONFIG}: backbone")
    head_config = _head_config(content["head"], f"{folder / CONFIG}: head")
    included = content["backbone_included"]
    prefixes = ["head", *(["reader"] if "reader" in content else []), *(["backbone"] if included else [])]
    parts = _parts(tensors, prefixes, folder / WEIGHTS)
    if included:
        with torch.random.fork_rng(devices=[]):
            body = build_backbone(spec)
        _load(body.sam, parts["backbone"], folder / WEIGHTS)
        body.freeze()
    else:
        body = load_backbone(backbone or spec)
        if fingerprint(body.sam.sam_mask_decoder) != content["decoder_sha256"]:
            raise RuacError(
                f"{folder}: the head belongs to another {spec.kind} backbone than {body.name} "
                f"(mask decoder {content['decoder_sha256'][:12]}... expected)"
            )
    if isinstance(head_config, EnsembleConfig):
        return _with_calibrator(UncertainSam(body, Ensemble(head_config)), content, folder)
    with torch.random.fork_rng(devices=[]):
        head = build_head(head_config, token_dim=body.token_dim, channels=body.channels)
    if head is not None:
        _load(head, parts["head"], folder / WEIGHTS)
        head.requires_grad_(False).eval()
    looks = config_from(LooksConfig, content["looks"], f"{folder / CONFIG}: looks") if "looks" in content else None
    reader = None
    if "reader" in content:
        reader = LookReader(config_from(LookReaderConfig, content["reader"], f"{folder / CONFIG}: reader"))
        _load(reader, parts["reader"], folder / WEIGHTS)
        reader.requires_grad_(False).eval()
    return _with_calibrator(UncertainSam(body, head, looks=looks, reader=reader), content, folder)


def _with_calibrator(model: UncertainSam, content: dict, folder: Path) -> UncertainSam:
    if content.get("calibrator") is not None:  # older exports have no such key
        model.calibrator = load_calibrator(folder / CALIBRATOR, **model_identity(model))
    return model.eval()


def model_identity(model: UncertainSam) -> dict[str, Any]:
    """What a calibrator of its logits belongs to: a hash of backbone and head, and the side of the pictures."""
    digest = hashlib.sha256(fingerprint(model.backbone.sam).encode())
    if model.head is not None:
        digest.update((json.dumps(asdict(model.head.config), sort_keys=True) + fingerprint(model.head)).encode())
    return {"model": digest.hexdigest(), "image_size": model.image_size}


def _head_entry(config: HeadConfig | EnsembleConfig) -> dict[str, Any]:
    """posterior says which config the other keys are of; an ensemble, which has no head, does not hold it."""
    return {"posterior": config.posterior} | asdict(config)


def _head_config(entry: Any, where: str) -> HeadConfig | EnsembleConfig:
    if isinstance(entry, dict) and entry.get("posterior") == "ensemble":
        return config_from(EnsembleConfig, {key: value for key, value in entry.items() if key != "posterior"}, where)
    return config_from(HeadConfig, entry, where)


def exported_backbone(folder: str | Path) -> tuple[BackboneConfig, bool]:
    """How to rebuild the backbone of an export, and whether its weights are in it. Raises `RuacError` for no export."""
    path = Path(folder) / CONFIG
    content = _read_config(path)
    return config_from(BackboneConfig, content["backbone"], f"{path}: backbone"), content["backbone_included"]


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over names, shapes and float32 values of a module's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _compact(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    lossless = all(torch.equal(halves[name].to(tensor.dtype), tensor) for name, tensor in tensors.items())
    return halves if lossless else tensors


def _parts(tensors: dict[str, Tensor], prefixes: list[str], path: Path) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in prefixes}
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition(".")
        if prefix not in parts:
            raise RuacError(f"{path}: unexpected tensor {name!r}; expected names that start with {' or '.join(parts)}")
        parts[prefix][rest] = tensor.float()
    return parts


def _load(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise RuacError(f"{path}: does not fit its config: {' '.join(str(error).split())[:300]}") from error


def _read_config(path: Path) -> dict:
    content = read_json(path, "not found; expected a folder written by ruac export")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RuacError(f"{path}: expected an export of format {FORMAT}")
    for key in ("backbone", "backbone_included", "decoder_sha256", "head"):
        if key not in content:
            raise RuacError(f"{path}: key '{key}' is missing")
    return content
