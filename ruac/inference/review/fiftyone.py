"""A review queue for FiftyOne: a dataset folder with masks, reliability, and a heatmap of the uncertainty.

The folder is in the JSON layout of ``fiftyone.types.FiftyOneDataset`` from before version 0.8, which newer versions
read as well: theirs is bound to a version of FiftyOne and to its database.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ruac.base.errors import RuacError
from ruac.base.files import atomic_path, sha256, write_text
from ruac.base.version import VERSION
from ruac.inference.review.queue import QueuedObject, QueuedPicture, ReviewQueue

SAMPLES, METADATA = "samples.json", "metadata.json"
FIELD, HEATMAP = "predictions", "heatmap"
MAPS = Path("fields") / HEATMAP  # FiftyOne takes paths in such a folder's field relative to the dataset


def write_fiftyone(queue: ReviewQueue, out: Path, *, pictures: Path) -> list[Path]:
    """Write ``metadata.json``, ``samples.json`` and the maps; samples are in the order of the queue.

    Every sample has ``risk`` and ``rank`` (from 1), to sort by. pictures: the folder that was predicted; its files stay
    there and are named by their full path. Raises `RuacError` where one is missing or has changed since.
    """
    samples = []
    for rank, picture in enumerate(queue.pictures, start=1):
        samples.append(_sample(picture, rank, out, pictures))
    write_text(out / SAMPLES, json.dumps({"samples": samples}) + "\n")
    info = {"ruac": VERSION, "without_an_answer": queue.unanswered, "below_min_risk": queue.safe}
    write_text(out / METADATA, json.dumps({"name": "ruac-review", "media_type": "image", "info": info}) + "\n")
    return [out / METADATA, out / SAMPLES]


def _sample(picture: QueuedPicture, rank: int, out: Path, pictures: Path) -> dict[str, Any]:
    path = pictures / picture.file
    try:
        same = sha256(path) == picture.sha256
    except OSError as error:
        raise RuacError(f"{path}: cannot be read: {error.strerror}; expected the folder that was predicted") from error
    if not same:
        raise RuacError(f"{path}: has changed since it was predicted; run ruac predict again")
    sample = {
        "filepath": str(path.resolve()),
        "tags": [],
        "metadata": None,
        "risk": picture.risk,
        "rank": rank,
        "empty_masks": picture.empty,
        FIELD: {"_cls": "Detections", "detections": [_detection(each, picture) for each in picture.objects]},
    }
    if picture.uncertainty is not None:
        place = MAPS / f"{picture.file}.png"
        with atomic_path(out / place) as temporary:
            shutil.copyfile(picture.uncertainty, temporary)
        heatmap = {"_cls": "Heatmap", "tags": [], "map_path": place.as_posix(), "range": [0, picture.one]}
        sample[HEATMAP] = {"_id": _id(picture, 0), **heatmap}
    return sample


def _detection(each: QueuedObject, picture: QueuedPicture) -> dict[str, Any]:
    """Boxes are shares of the picture's sides, and the mask fills its box."""
    height, width = picture.size
    x, y, across, down = each.bbox
    inside = each.mask[int(y) : int(y + down), int(x) : int(x + across)]
    return {
        "_id": _id(picture, each.id),
        "_cls": "Detection",
        "attributes": {},
        "tags": [],
        "label": each.kind,
        "bounding_box": [x / width, y / height, across / width, down / height],
        "mask": {"$binary": {"base64": _packed(inside), "subType": "00"}},
        "confidence": each.numbers["reliability"],
        **each.numbers,
    }


def _packed(array: np.ndarray) -> str:
    """As FiftyOne keeps arrays: a compressed ``.npy``."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return base64.b64encode(zlib.compress(stream.getvalue())).decode("ascii")


def _id(picture: QueuedPicture, number: int) -> dict[str, str]:
    """An object id of 12 bytes that is the same in every run."""
    return {"$oid": hashlib.sha256(f"{picture.file} {picture.sha256} {number}".encode()).hexdigest()[:24]}
