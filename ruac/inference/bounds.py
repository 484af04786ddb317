"""Conformal bounds of a model: whose they are, and where they lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ruac.base.errors import RuacError
from ruac.base.provenance import settings_of
from ruac.conformal.bounds import NAME, MaskBounds, load_bounds
from ruac.inference.export import fingerprint
from ruac.inference.model import UncertainSam


def bounds_identity(model: UncertainSam) -> dict:
    """What bounds belong to: weights, head, looks and reader as one hash, and the input side.

    Filters change no probability, and so do not count.
    """
    parts = [part and settings_of(part) for part in (model.head and model.head.config, model.looks)]
    reader = model.reader and settings_of(model.reader.config)
    content = json.dumps([fingerprint(model.looking(model.looks)), *parts, reader], sort_keys=True, default=str)
    return {"model": hashlib.sha256(content.encode()).hexdigest(), "image_size": model.image_size}


def bounds_path(place: str | Path) -> Path:
    """A file, or the file of that name in a folder such as an export."""
    place = Path(place)
    return place if place.suffix == ".json" else place / NAME


def read_bounds(place: str | Path, model: UncertainSam) -> MaskBounds:
    """The bounds in a file of ``ruac conformal`` or a folder with one.

    Raises `RuacError` if there is none, it is broken, or it was fitted on another model or input resolution.
    """
    path = bounds_path(place)
    bounds, own = load_bounds(path), bounds_identity(model)
    for key, what in (("image_size", "input side"), ("model", "model")):
        if bounds.identity.get(key) != own[key]:
            found, wanted = (str(value)[:12] for value in (bounds.identity.get(key), own[key]))
            raise RuacError(f"{path}: fitted on another {what} ({found}, expected {wanted}); run ruac conformal for it")
    return bounds
