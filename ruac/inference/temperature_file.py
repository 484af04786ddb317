"""The small JSON file that older versions kept a fitted temperature in; fits are exports now, and these still load."""

from __future__ import annotations

import math
from pathlib import Path

from ruac.backbone import Backbone
from ruac.base.errors import RuacError
from ruac.base.files import read_json
from ruac.inference.export import fingerprint


def read_temperature(path: str | Path, backbone: Backbone) -> float:
    """The temperature in a file of `run_fit`. Raises `RuacError` for a file that is none, or another backbone's."""
    try:
        content = read_json(path, "temperature file not found; expected a JSON file of an older fit")
        temperature, fitted = content["temperature"], content["backbone"]
    except (KeyError, TypeError) as error:
        raise RuacError(f"{path}: expected the JSON file of an older temperature fit: {error!r:.300}") from error
    if fitted != (own := backbone_identity(backbone)):
        raise RuacError(f"{path}: fitted for another backbone {fitted}, expected {own}")
    if not isinstance(temperature, float) or not 0 < temperature < math.inf:
        raise RuacError(f"{path}: key 'temperature': {temperature!r}, expected a positive number")
    return temperature


def backbone_identity(backbone: Backbone) -> dict:
    """What a temperature belongs to: the weights' hash and the side of the input."""
    return {"sha256": fingerprint(backbone.sam), "image_size": backbone.image_size}
