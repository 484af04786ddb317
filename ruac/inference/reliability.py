"""How good a mask is, in one number fitted on source images, and which masks to accept at a chosen risk."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ruac.base.config import config_from
from ruac.base.errors import RuacError, keys_of
from ruac.base.files import read_json, write_text
from ruac.inference.expected_iou import expected_iou, joint_iou
from ruac.inference.export import fingerprint
from ruac.inference.model import UncertainSam

NAME = "reliability.json"
FORMAT = 1
FEATURES = ("predicted_iou", "expected_iou", "joint_iou", "agreement")
_LIMIT = 0.005  # features are shares; nearer to 0 and 1 they say no more


@dataclass
class Reader:
    """Expected IoU of a mask, by a logistic function that rises in every feature.

    weights: of the features' logits, none negative; features are those of `mask_features`. risk: mean of 1 - IoU of the
    fitted source masks with at least the reliability in `threshold`, at the same place; thresholds rise.
    """

    weights: dict[str, float]
    bias: float
    threshold: list[float]
    risk: list[float]

    def read(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Reliability float32 ``[...]`` in (0, 1) from features of that shape."""
        score = self.bias + sum(weight * feature_logit(features[name]) for name, weight in self.weights.items())
        return (1 / (1 + np.exp(-np.asarray(score, dtype=np.float64)))).astype(np.float32)

    def threshold_for(self, risk: float) -> float:
        """The smallest reliability to accept for a mean of 1 - IoU of at most `risk` among accepted masks.

        Infinite where no such one was seen. It holds on average for masks like those of the fit: under another domain
        it is a wish, see docs/predictor.md. Raises `RuacError` for a risk outside [0, 1].
        """
        if not 0 <= risk <= 1:
            raise RuacError(f"risk: {risk}, expected a mean of 1 - IoU in [0, 1]")
        return min((t for t, r in zip(self.threshold, self.risk, strict=True) if r <= risk), default=math.inf)


@dataclass(frozen=True)
class Reliability:
    """readers: by the looks of the answer, "" for a plain one and else joined by commas. identity: of the model."""

    readers: dict[str, Reader]
    identity: dict

    def reader(self, looks: list[str]) -> Reader | None:
        return self.readers.get(",".join(looks))


def reliability_identity(model: UncertainSam) -> dict:
    """What a reliability belongs to: the weights' hash, head and all, and the side of the input."""
    return {"sha256": fingerprint(model), "image_size": model.image_size}


def mask_features(
    masks: np.ndarray, probability: np.ndarray, scores: np.ndarray, first: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """What is known of masks ``bool [..., H, W]``, each ``[...]`` in [0, 1].

    predicted_iou: `scores`, clipped. expected_iou, joint_iou: of the probability map, see `expected_iou`. agreement:
    IoU with the masks of the first look, where there was a second one.
    """
    features = {
        "predicted_iou": np.clip(scores, 0, 1),
        "expected_iou": expected_iou(masks, probability),
        "joint_iou": joint_iou(masks, probability),
    }
    if first is not None:
        union = (masks | first).sum(axis=(-2, -1))
        features["agreement"] = np.where(union > 0, (masks & first).sum(axis=(-2, -1)) / np.maximum(union, 1), 1.0)
    return features


def feature_logit(values: np.ndarray) -> np.ndarray:
    values = np.clip(np.asarray(values, dtype=np.float64), _LIMIT, 1 - _LIMIT)
    return np.log(values) - np.log1p(-values)


def save_reliability(path: str | Path, reliability: Reliability, record: dict) -> Path:
    """Write as JSON. record: how it was fitted."""
    content = {"format": FORMAT, **asdict(reliability), "record": record}
    write_text(path, json.dumps(content, indent=1) + "\n")
    return Path(path)


def load_reliability(path: str | Path, identity: dict) -> Reliability:
    """Read a file of `save_reliability`, or `NAME` in a folder.

    Raises `RuacError` if it is missing, none, or was fitted for another model than `identity` says.
    """
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    try:
        content = read_json(path, "reliability not found; expected a file of ruac fit-reliability")
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}")
        found = content["identity"]
        readers = {key: config_from(Reader, reader, f"{path}: {key}") for key, reader in content["readers"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise RuacError(f"{path}: expected a file of ruac fit-reliability: {error!r:.300}") from error
    for key, reader in readers.items():
        if not all(isinstance(weight, float | int) for weight in reader.weights.values()):
            raise RuacError(f"{path}: reader {key!r}: weights {reader.weights}, expected numbers")
        if len(reader.threshold) != len(reader.risk) or min(reader.weights.values(), default=0) < 0:
            raise RuacError(f"{path}: reader {key!r}: expected as many thresholds as risks, and no negative weight")
        if strange := sorted(set(reader.weights) - set(FEATURES)):
            raise RuacError(f"{path}: reader {key!r}: weight of {strange[0]!r}, expected one of {', '.join(FEATURES)}")
        with keys_of(f"{path}: reader {key!r}"):
            numbers = [float(x) for x in (*reader.weights.values(), reader.bias, *reader.threshold, *reader.risk)]
            if not np.isfinite(numbers).all():
                raise RuacError(f"{path}: reader {key!r}: expected finite numbers")
    if found != identity:
        raise RuacError(f"{path}: fitted for another model {found}, expected {identity}")
    return Reliability(readers, found)
