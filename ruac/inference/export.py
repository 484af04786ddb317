"""Exported models: a folder with ``model.safetensors`` and ``config.json``, free of training code.

A calibrated model has ``calibrator.safetensors`` beside them, and every export a model card, ``README.md``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ruac.backbone import BackboneConfig, build_backbone, load_backbone
from ruac.backbone.checkpoint import drop_memory
from ruac.backbone.load import backbone_name
from ruac.backbone.names import OFFICIAL
from ruac.base.errors import RuacError, brief
from ruac.base.files import atomic_folder, write_text
from ruac.base.provenance import settings_of
from ruac.calibration import load_calibrator
from ruac.inference.ensemble import Ensemble, EnsembleConfig
from ruac.inference.export_config import CALIBRATOR, CONFIG, WEIGHTS, ExportConfig, read_config
from ruac.inference.model import UncertainSam
from ruac.inference.model_card import CARD, model_card
from ruac.uncertainty import HeadConfig, build_head
from ruac.uncertainty.look_reader import LookReader

_STORED = (torch.float32, torch.float16)


def export_model(
    model: UncertainSam,
    backbone: BackboneConfig,
    out: str | Path,
    *,
    with_backbone: bool,
    record: dict | None = None,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write `model` to the folder `out`: head and calibrator, if any, and the backbone's weights if `with_backbone`.

    backbone: how to rebuild it. record: provenance that goes into the config. card: metadata of the model card beside
    or in place of the usual, such as a license. The backbone's weights are stored as float16 if that loses nothing in
    any of them, else as they are. Raises `RuacError` when there is neither a head nor a calibrator nor a backbone to
    write.
    """
    config = described(model, backbone, with_backbone=with_backbone, record=record)
    with atomic_folder(out, last=CONFIG) as folder:
        write_export(model, config, folder)
        write_text(folder / CARD, model_card(config, card))
    return Path(out)


def described(
    model: UncertainSam, backbone: BackboneConfig, *, with_backbone: bool, record: dict | None = None
) -> ExportConfig:
    """What an export of `model` says of itself. Raises `RuacError` as `export_model` does."""
    if model.head is None and model.reader is None and model.calibrator is None and not with_backbone:
        raise RuacError("export: the model has no uncertainty head; without its backbone nothing is left to export")
    if model.filters:
        raise RuacError("export: a model with filters has no export; ask `predict` for correct=True")
    return ExportConfig(
        backbone=backbone,
        backbone_included=with_backbone,
        decoder_sha256=fingerprint(model.backbone.sam.sam_mask_decoder),
        head=model.head.config if model.head else HeadConfig("none"),
        calibrator=None if model.calibrator is None else model.calibrator.kind,
        looks=model.looks,
        reader=None if model.reader is None else model.reader.config,
        record=record or {},
    )


def write_export(model: UncertainSam, config: ExportConfig, folder: Path) -> None:
    """Tensors and config into a folder that nobody reads yet."""
    tensors = {
        f"{part}.{name}": tensor
        for part, module in (("head", model.head), ("reader", model.reader))
        if module is not None
        for name, tensor in module.state_dict().items()
    }
    if config.backbone_included:
        tensors |= _compact({f"backbone.{name}": t for name, t in model.backbone.sam.state_dict().items()})
    if model.calibrator is not None:
        model.calibrator.save(folder / CALIBRATOR)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    config.write(folder)


def load_exported(folder: str | Path, *, backbone: str | BackboneConfig | None = None) -> UncertainSam:
    """Load an exported model, frozen and in eval mode, on the CPU. The folder need not be trusted.

    backbone: where to find the backbone of a head-only export (default: as recorded, if that is a checkpoint known by
    name or a file of the folder).

    Raises `RuacError` when the folder is no export, a file is not the one that was written, a tensor is missing, left
    over, misshapen or of another type, or the backbone is not the one the head was trained on, or the calibrator was
    fitted for.
    """
    folder = Path(folder)
    config = read_config(folder)
    config.verify(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except Exception as error:
        raise RuacError(f"{folder / WEIGHTS}: cannot be read as safetensors: {brief(error)}") from error
    prefixes = ["head", *(["reader"] if config.reader else []), *(["backbone"] if config.backbone_included else [])]
    parts = _parts(tensors, prefixes, folder / WEIGHTS)
    if config.backbone_included:
        with torch.random.fork_rng(devices=[]):
            body = build_backbone(config.backbone)
        if config.backbone.kind in OFFICIAL:
            drop_memory(body.sam, parts["backbone"])
        _load(body.sam, parts["backbone"], folder / WEIGHTS)
        body.freeze()
    else:
        body = load_backbone(backbone or config.own_backbone(folder))
    if fingerprint(body.sam.sam_mask_decoder) != config.decoder_sha256:
        raise RuacError(
            f"{folder}: the head belongs to another {config.backbone.kind} backbone than {body.name} "
            f"(mask decoder {config.decoder_sha256[:12]}... expected)"
        )
    if isinstance(config.head, EnsembleConfig):
        return _with_calibrator(UncertainSam(body, Ensemble(config.head)), config, folder)
    with torch.random.fork_rng(devices=[]):
        head = build_head(config.head, token_dim=body.token_dim, channels=body.channels)
    if head is not None:
        _load(head, parts["head"], folder / WEIGHTS)
        head.requires_grad_(False).eval()
    elif parts["head"]:
        raise RuacError(f"{folder / WEIGHTS}: holds a head, of which its config says nothing")
    reader = None
    if config.reader is not None:
        reader = LookReader(config.reader)
        _load(reader, parts["reader"], folder / WEIGHTS)
        reader.requires_grad_(False).eval()
    return _with_calibrator(UncertainSam(body, head, looks=config.looks, reader=reader), config, folder)


def _with_calibrator(model: UncertainSam, config: ExportConfig, folder: Path) -> UncertainSam:
    if config.calibrator is not None:
        model.calibrator = load_calibrator(folder / CALIBRATOR, **model_identity(model))
    return model.eval()


def model_identity(model: UncertainSam) -> dict[str, Any]:
    """What a calibrator of its logits belongs to: a hash of backbone and head, and the side of the pictures."""
    digest = hashlib.sha256(fingerprint(model.backbone.sam).encode())
    if model.head is not None:
        digest.update((json.dumps(settings_of(model.head.config), sort_keys=True) + fingerprint(model.head)).encode())
    return {"model": digest.hexdigest(), "image_size": model.image_size}


def exported_backbone(folder: str | Path) -> tuple[BackboneConfig, bool]:
    """How to rebuild the backbone of an export, and whether an export made from it must hold it too.

    It must if its weights are in this one, or under no name that others know. Raises `RuacError` for no export.
    """
    config = read_config(folder)
    return config.backbone, config.backbone_included or backbone_name(config.backbone) is None


def origin(folder: str | Path | None) -> dict[str, dict]:
    """For the record of an export that is made from that in `folder`: what that one's says, so that it is not lost."""
    return {} if folder is None else {"made_from": read_config(folder).record}


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
        parts[prefix][rest] = tensor
    return parts


def _load(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    for name, own in module.state_dict().items():
        if name not in state:
            continue  # is said below, or has an older name
        if state[name].shape != own.shape:  # torch itself takes a list of numbers for one number
            found, expected = (list(tensor.shape) for tensor in (state[name], own))
            raise RuacError(f"{path}: {name}: shape {found}, expected {expected}")
        if state[name].dtype not in (*_STORED, own.dtype):
            raise RuacError(f"{path}: {name}: {state[name].dtype}, expected {' or '.join(map(str, _STORED))}")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise RuacError(f"{path}: does not fit its config: {brief(error)}") from error
