"""Encoded pictures: what a predictor keeps between clicks, and what it leaves on disk for another day."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ruac.backbone import Features
from ruac.base.errors import RuacError, brief, keys_of
from ruac.base.files import atomic_path
from ruac.base.version import VERSION
from ruac.data.augment import prepare
from ruac.inference.model import UncertainSam

FORMAT = "1"
ENCODED = 8  # most pictures encoded at a time


@dataclass(frozen=True, eq=False)
class EncodedPicture:
    """features: of one picture, B = 1. size: its (H, W). image: ``uint8 [H, W, 3]``, None where it came from a file."""

    features: Features
    size: tuple[int, int]
    image: np.ndarray | None = None


class Encoder:
    """Encodes pictures for a model, the last `remember` of them only once."""

    def __init__(self, model: UncertainSam, device: torch.device, remember: int):
        self._model, self._device, self._remember = model, device, remember
        self._known: OrderedDict[str, EncodedPicture] = OrderedDict()

    @torch.no_grad()
    def __call__(self, images: list[np.ndarray]) -> list[EncodedPicture]:
        """images: ``uint8 [H, W, 3]`` each."""
        keys = [hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest() for image in images]
        found = {key: self._known[key] for key in keys if key in self._known}
        new = [key for key in dict.fromkeys(keys) if key not in found]
        for start in range(0, len(new), ENCODED):
            some = [images[keys.index(key)] for key in new[start : start + ENCODED]]
            found |= dict(zip(new[start : start + ENCODED], self._encode(some), strict=True))
        for key in keys:
            self._known[key] = found[key]
            self._known.move_to_end(key)
        while len(self._known) > self._remember:
            self._known.popitem(last=False)
        return [found[key] for key in keys]

    def _encode(self, images: list[np.ndarray]) -> list[EncodedPicture]:
        """Pictures that fill the same part of the model's square at once."""
        frames = [self._model.backbone.frame(image.shape[:2]) for image in images]
        encoded: dict[int, EncodedPicture] = {}
        for frame in dict.fromkeys(frames):
            rows = [row for row, one in enumerate(frames) if one == frame]
            features = self._model.encode(torch.cat([prepare(images[row], frame) for row in rows]).to(self._device))
            for place, row in enumerate(rows):
                one = features.gather(torch.tensor([place], device=self._device)) if len(rows) > 1 else features
                encoded[row] = EncodedPicture(one, images[row].shape[:2], images[row])
        return [encoded[row] for row in range(len(images))]


def save_embeddings(path: str | Path, pictures: list[EncodedPicture], identity: dict) -> Path:
    """Write the features of `pictures` as safetensors. identity: of the backbone, see `backbone_identity`.

    Raises `RuacError` for features that are more than one encoder pass, as an ensemble's are.
    """
    path = Path(path)
    if any(type(picture.features) is not Features for picture in pictures):
        raise RuacError(f"{path}: the model encodes a picture more than once; such embeddings are not kept in files")
    tensors = {}
    for number, picture in enumerate(pictures):
        maps = [picture.features.embedding, *picture.features.high_res]
        tensors |= {f"{number}.{name}": _stored(map_) for name, map_ in zip(_NAMES, maps, strict=False)}
    frames = [picture.features.frame for picture in pictures]
    about = {"sizes": [list(picture.size) for picture in pictures], "frames": frames, "backbone": identity}
    metadata = {"format": FORMAT, "ruac": VERSION, "embeddings": json.dumps(about)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    return path


def load_embeddings(path: str | Path, identity: dict, device: torch.device) -> list[EncodedPicture]:
    """What `save_embeddings` wrote.

    Raises `RuacError` for a file that is none, or one of another backbone or input size than `identity`.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        about = json.loads(metadata["embeddings"])
        sizes, made_by = about["sizes"], about["backbone"]
        frames = [frame and tuple(frame) for frame in about.get("frames", [None] * len(sizes))]
        names = [name for name in _NAMES if f"0.{name}" in tensors]  # a SAM 1 has no fine features
        maps = [[tensors[f"{number}.{name}"] for name in names] for number in range(len(sizes))]
    except FileNotFoundError:
        raise RuacError(f"{path}: embeddings not found") from None
    except Exception as error:  # safetensors has no common base class for what it raises
        raise RuacError(f"{path}: not a file of embeddings: {brief(error)}") from error
    if made_by != identity:
        raise RuacError(f"{path}: embeddings of another backbone {made_by}, expected {identity}")
    with keys_of(path):
        return [
            EncodedPicture(Features(embedding, high_res, frame=frame), (int(height), int(width)))
            for (embedding, *high_res), (height, width), frame in zip(maps, sizes, frames, strict=True)
        ]


_NAMES = ("embedding", "high_res.0", "high_res.1")


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float().cpu().contiguous().clone()  # safetensors refuses tensors that share memory
