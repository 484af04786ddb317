"""The answers of a folder in the order in which a person should look at them, the riskiest first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from ruac.base.errors import RuacError, keys_of
from ruac.base.files import read_json
from ruac.data.coco import to_rle
from ruac.data.sample import check_inside, check_pixels
from ruac.inference.save import FORMAT, INDEX


@dataclass(frozen=True)
class QueuedObject:
    """id: of the answer's JSON, unique in its picture. kind: its class. segmentation: COCO's compressed RLE.

    bbox: x, y, width, height. numbers: ``risk`` (1 - reliability), ``reliability``, ``score``, ``expected_iou`` and
    ``mean_uncertainty``, each in [0, 1].
    """

    id: int
    kind: str
    segmentation: dict[str, Any]
    bbox: list[float]
    area: int
    numbers: dict[str, float]

    @property
    def risk(self) -> float:
        return self.numbers["risk"]

    @property
    def mask(self) -> np.ndarray:
        """``bool [H, W]``."""
        return rle.decode(self.segmentation).astype(bool)


@dataclass(frozen=True)
class QueuedPicture:
    """file: relative to the folder of pictures. size: (H, W). objects: the riskiest first, none of them empty.

    risk: the largest of its objects, and 1 where there is none, or where a prompt was answered by an empty mask:
    empty counts these. uncertainty: the 16-bit PNG, None without an object. one: its value for uncertainty 1.
    """

    file: str
    sha256: str
    size: tuple[int, int]
    objects: list[QueuedObject]
    empty: int
    uncertainty: Path | None
    one: int

    @property
    def risk(self) -> float:
        return 1.0 if self.empty or not self.objects else self.objects[0].risk


@dataclass(frozen=True)
class ReviewQueue:
    """pictures: the riskiest first. safe: those below the risk asked for. unanswered: those that have no answer."""

    pictures: list[QueuedPicture]
    safe: list[str]
    unanswered: list[str]

    @property
    def kinds(self) -> list[str]:
        """Classes of all objects, sorted."""
        return sorted({each.kind for picture in self.pictures for each in picture.objects})


def read_queue(folder: str | Path, *, min_risk: float = 0.0) -> ReviewQueue:
    """Read a finished folder of ``ruac predict``. min_risk: pictures below it are left out.

    Of equal risks the first name comes first. Raises `RuacError` for a folder that is none or unfinished, an answer
    that is missing or broken, and a risk outside [0, 1].
    """
    if not 0 <= min_risk <= 1:
        raise RuacError(f"min-risk: {min_risk}, expected a mean of 1 - IoU in [0, 1]")
    folder = Path(folder)
    index = _read(folder / INDEX, "; expected a finished folder of ruac predict")
    with keys_of(f"{folder / INDEX}: expected a list of ruac predict"):
        pictures = [_picture(folder, entry) for entry in index["pictures"]]
        unanswered = [*(entry["file"] for entry in index["failed"]), *index["without_prompt"]]
        for name in unanswered:
            check_inside(name, folder / INDEX)
    ordered = sorted(pictures, key=lambda picture: (-picture.risk, picture.file))
    safe = [picture.file for picture in ordered if picture.risk < min_risk]
    return ReviewQueue([picture for picture in ordered if picture.risk >= min_risk], safe, sorted(unanswered))


def _picture(folder: Path, listed: dict[str, str]) -> QueuedPicture:
    for key in ("answer", "file"):
        check_inside(listed[key], folder / INDEX)
    path = folder / listed["answer"]
    content = _read(path, "; run ruac predict again")
    with keys_of(f"{path}: expected an answer of ruac predict"):
        if content["picture"]["sha256"] != listed["sha256"]:
            raise RuacError(f"{path}: answers another picture than {INDEX} says; run ruac predict again")
        height, width = content["size"]
        check_pixels(height, width, path)
        objects = [_object(entry, height, width, f"{path}: object {entry['id']}") for entry in content["objects"]]
        filled = sorted((each for each in objects if each.area), key=lambda each: (-each.risk, each.id))
        if (map_file := content["files"].get("uncertainty")) is not None:
            check_inside(map_file, path)
        uncertainty = None if map_file is None else path.with_name(map_file)
        empty = len(objects) - len(filled)
        one = int(content["uncertainty_one"])
        return QueuedPicture(listed["file"], listed["sha256"], (height, width), filled, empty, uncertainty, one)


def _object(entry: dict[str, Any], height: int, width: int, where: str) -> QueuedObject:
    code = to_rle(entry["segmentation"], height, width, where)
    if type(entry["id"]) is not int or not isinstance(entry["class"], str):
        raise RuacError(f"{where}: class {entry['class']!r}, expected a whole number as its id and a name as its class")
    names = ("reliability", "score", "expected_iou", "mean_uncertainty")
    numbers = {name: float(entry[name]) for name in names if entry[name] is not None}
    if not all(0 <= value <= 1 for value in numbers.values()):
        raise RuacError(f"{where}: {numbers}, expected numbers in [0, 1]")
    numbers = {"risk": 1 - numbers["reliability"]} | numbers
    return QueuedObject(entry["id"], entry["class"], code, rle.toBbox(code).tolist(), int(rle.area(code)), numbers)


def _read(path: Path, hint: str) -> dict[str, Any]:
    content = read_json(path, f"not found{hint}")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RuacError(f"{path}: expected format {FORMAT}{hint}")
    return content
