"""Answers as files that any tool reads: PNGs, and JSON with COCO run lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pycocotools import mask as rle

from ruac.base.errors import RuacError
from ruac.base.files import atomic_path, read_json, sha256, write_text
from ruac.inference.predicted import PredictedMasks
from ruac.inference.prompts_file import UNNAMED

FORMAT = 1
INDEX = "predictions.json"  # of a folder of answers
LEVELS = 65535  # uncertainty 1 in the 16-bit PNG
SCALE = {"quantity": "total uncertainty", "scale": f"value / {LEVELS}", "range": "0 certain, 1 coin toss"}
"""Text chunks of the uncertainty PNG."""
PARTS = ("mask", "ids", "uncertainty", "inner", "outer")


class PictureAnswer:
    """All objects of a picture of `size` (H, W), collected one by one, and then its files; see docs/outputs.md."""

    def __init__(self, size: tuple[int, int]):
        self.size = size
        self.objects: list[dict[str, Any]] = []
        self._drawn: dict[str, np.ndarray] = {}

    def add(self, answer: PredictedMasks, *, kind: str = UNNAMED, prompt: dict[str, Any] | None = None) -> None:
        """One object, its masks ``[M, H, W]`` with the one to draw first. kind: its class."""
        best, *others = _entries(answer)
        entry = {"id": len(self.objects) + 1, "class": kind, "prompt": prompt, **best}
        self._draw("mask", answer.masks[0])
        self._draw("uncertainty", answer.uncertainty[0])
        for bound in ("inner", "outer"):
            if (masks := getattr(answer, bound)) is not None:
                entry[bound] = _run_lengths(masks[0])
                self._draw(bound, masks[0])
        self.objects.append(entry | ({"others": others} if others else {}))

    def rank(self) -> None:
        """The most reliable object first, and ids in that order."""
        self.objects.sort(key=lambda entry: -entry["reliability"])
        self.objects = [entry | {"id": number} for number, entry in enumerate(self.objects, start=1)]

    def save(
        self, folder: Path, name: str, *, picture: dict[str, Any] | None, settings: str | None = None
    ) -> list[Path]:
        """Write the files and return them, the JSON last: where it is, all are. picture: what the JSON says of it.

        settings: fingerprint of what the answer depends on beside the picture. Earlier files of that name go first.
        """
        discard(folder, name)
        pixels = {part: array.astype(np.uint8) * 255 for part, array in self._drawn.items() if part != "uncertainty"}
        pixels.setdefault("mask", np.zeros(self.size, np.uint8))
        if len(self.objects) > 1:
            pixels["ids"] = self._numbered()
        if "uncertainty" in self._drawn:
            pixels["uncertainty"] = np.rint(np.clip(self._drawn["uncertainty"], 0.0, 1.0) * LEVELS).astype(np.uint16)
        paths = {part: folder / f"{name}.{part}.png" for part in PARTS if part in pixels}
        for part, path in paths.items():
            save_png(path, pixels[part], SCALE if part == "uncertainty" else {})
        content = {
            "format": FORMAT,
            "picture": picture,
            "settings": settings,
            "size": [int(side) for side in self.size],
        }
        content |= {"files": {part: path.name for part, path in paths.items()}, "uncertainty_one": LEVELS}
        write_text(folder / f"{name}.json", json.dumps(content | {"objects": self.objects}, indent=2) + "\n")
        return [*paths.values(), folder / f"{name}.json"]

    def _draw(self, part: str, array: np.ndarray) -> None:
        """What is anywhere; of the uncertainties of all objects the largest."""
        self._drawn[part] = np.maximum(self._drawn[part], array) if part in self._drawn else array.copy()

    def _numbered(self) -> np.ndarray:
        """Ids of the objects, the more reliable above."""
        numbered = np.zeros(self.size, np.uint16)
        for entry in sorted(self.objects, key=lambda entry: entry["reliability"]):
            numbered[rle.decode(entry["segmentation"]) > 0] = entry["id"]
        return numbered


def save_answer(
    folder: str | Path, name: str, answer: PredictedMasks, *, picture: str | Path | None = None
) -> list[Path]:
    """Write an answer as ``NAME.mask.png``, ``NAME.uncertainty.png``, ``NAME.json``; returns the files.

    docs/outputs.md says what they hold. picture: the file that was asked about, which the JSON then names. Raises
    `RuacError` where the folder cannot be written, or holds the answer to another picture under that name.
    """
    folder, of = Path(folder), None
    if picture is not None:
        check_same_picture(folder, name, picture)
        of = {"file": Path(picture).name, "sha256": sha256(picture)}
    whole = PictureAnswer(answer.masks.shape[-2:])
    for one in answer.each():
        whole.add(one)
    return whole.save(folder, name, picture=of)


def discard(folder: Path, name: str) -> None:
    """Remove the files of an answer, the JSON first, so that it never stands beside files of another one."""
    for path in (folder / f"{name}.json", *(folder / f"{name}.{part}.png" for part in PARTS)):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise RuacError(f"{path}: cannot be written: {error.strerror}") from error


def check_same_picture(folder: str | Path, name: str, picture: str | Path) -> None:
    """Raise `RuacError` if the answer named so in `folder` is not one to this `picture`: nothing is overwritten."""
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        return
    try:
        of = read_json(path)["picture"]
        file, same = of["file"], of["sha256"] == sha256(picture)
    except (RuacError, KeyError, TypeError):
        file, same = "?", False
    if not same:
        raise RuacError(f"{path}: holds an answer to another picture ({file}), expected a folder of its own")


def _entries(answer: PredictedMasks) -> list[dict[str, Any]]:
    """What the JSON says of every mask."""
    numbers = {"score": answer.scores, "expected_iou": answer.expected_iou, "reliability": answer.trust}
    entries = []
    for index, (mask, uncertainty) in enumerate(zip(answer.masks, answer.uncertainty, strict=True)):
        code = _run_lengths(mask)
        entry = {name: float(values[index]) for name, values in numbers.items()}
        entry["mean_uncertainty"] = float(uncertainty[mask].mean()) if mask.any() else None
        entry |= {"area": int(rle.area(code)), "bbox": rle.toBbox(code).tolist(), "segmentation": code}
        entries.append(entry)
    return entries


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": code["counts"].decode("ascii")}


def save_png(path: Path, pixels: np.ndarray, text: dict[str, str] | None = None) -> None:
    """Write ``uint8`` or ``uint16`` pixels, whole or not at all. text: keys and values of the file's text chunks."""
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=info)
