"""The stored clicks of one sweep, to be repeated in another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ruac.backbone.prompts import BOX_FIRST
from ruac.base.errors import RuacError, keys_of
from ruac.base.files import sha256
from ruac.data.sample import Record
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.results.schema import OBJECTS

_COLUMNS = ["domain", "image", "object", "model", "points", "labels"]
Clicks = Callable[[str, Record], tuple[np.ndarray, np.ndarray]]


def replay_hash(spec: str) -> str:
    """SHA-256 of the stored clicks of ``FOLDER:MODEL``, with the model's name. Raises `RuacError` if there are none."""
    path, model = _replay_source(spec)
    if not path.is_file():
        raise RuacError(f"replay {spec!r}: {path} not found; expected FOLDER:MODEL of a finished sweep")
    return f"{sha256(path)}:{model}"


def read_clicks(spec: str, protocol: ProtocolConfig) -> Clicks:
    """Stored clicks of ``FOLDER:MODEL``, as a function of domain and record: points ``[N, P, 2]``, labels ``[N, P]``.

    Raises `RuacError` for an unknown folder or model, fewer clicks than `protocol` has, boxes where it
    has none (or the other way round), or an object without stored clicks.
    """
    path, model = _replay_source(spec)
    try:
        frame = pd.read_parquet(path, columns=_COLUMNS)
    except Exception as error:  # Arrow has many kinds of errors for what is damaged
        raise RuacError(f"replay {spec!r}: {path} cannot be read; expected FOLDER:MODEL of a finished sweep") from error
    frame = frame[frame.model == model]
    if not len(frame):
        raise RuacError(f"replay {spec!r}: no model {model!r} in {path}")
    with keys_of(f"replay {spec!r}: {path}"):
        first = np.asarray(frame.labels.iloc[0])
        boxed = bool(first[0] == BOX_FIRST)
    if boxed != protocol.box:
        raise RuacError(f"replay {spec!r}: made with protocol.box={not protocol.box}, expected {protocol.box}")
    if (stored := len(first) - protocol.box) < protocol.clicks:  # a box is two points, but one prompt
        raise RuacError(f"replay {spec!r}: has {stored} clicks, fewer than protocol.clicks={protocol.clicks}")
    places = zip(frame.domain, frame.image, frame.object, strict=True)
    stored_clicks = dict(zip(places, zip(frame.points, frame.labels, strict=True), strict=True))

    def clicks(domain: str, record: Record) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for key in record.object_ids:
            if (domain, record.id, key) not in stored_clicks:
                raise RuacError(f"replay {spec!r}: no clicks for {domain}/{record.id}/{key}")
            found.append(stored_clicks[domain, record.id, key])
        with keys_of(f"replay {spec!r}: {domain}/{record.id}"):
            points = np.stack([np.asarray(points, dtype=float).reshape(-1, 2) for points, _ in found])
            return points, np.stack([np.asarray(labels, dtype=int) for _, labels in found])

    return clicks


def _replay_source(spec: str) -> tuple[Path, str]:
    folder, _, model = spec.rpartition(":")
    return Path(folder) / OBJECTS, model
