"""An answer as files that any tool reads: PNGs, and JSON with COCO run lengths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from ruac.base.errors import RuacError
from ruac.base.files import atomic_path, sha256, write_text
from ruac.inference.predictor import PredictedMasks

LEVELS = 65535  # uncertainty 1 in the 16-bit PNG


def save_answer(
    folder: str | Path, name: str, answer: PredictedMasks, *, picture: str | Path | None = None
) -> list[Path]:
    """Write the best mask and its uncertainty as PNG, and all masks with their scores as JSON; returns the files.

    ``NAME.mask.png`` is 0 or 255, ``NAME.uncertainty.png`` has 16 bits (0 certain, 65535 coin toss), and in
    ``NAME.json`` every mask, best first, has a score (predicted IoU), its box, area, mean uncertainty inside it
    (null where it is empty) and COCO RLE; where the answer has inner and outer masks, ``NAME.inner.png`` and
    ``NAME.outer.png`` as well. picture: the file that was asked about, which the JSON then names. Raises `RuacError`
    where the folder cannot be written, or holds the answer to another picture under that name.
    """
    folder, of = Path(folder), None
    if picture is not None:
        check_same_picture(folder, name, picture)
        of = {"file": Path(picture).name, "sha256": sha256(picture)}
    mask, uncertainty = folder / f"{name}.mask.png", folder / f"{name}.uncertainty.png"
    save_png(mask, answer.masks[0].astype(np.uint8) * 255)
    save_png(uncertainty, np.rint(np.clip(answer.uncertainty[0], 0.0, 1.0) * LEVELS).astype(np.uint16))
    content = {
        "picture": of,
        "size": list(answer.masks.shape[1:]),
        "mask": mask.name,
        "uncertainty": {"file": uncertainty.name, "one": LEVELS},
        "masks": [_entry(*parts) for parts in zip(answer.masks, answer.scores, answer.uncertainty, strict=True)],
    }
    files = [mask, uncertainty]
    for bound in ("inner", "outer"):
        if (masks := getattr(answer, bound)) is not None:
            files.append(folder / f"{name}.{bound}.png")
            save_png(files[-1], masks[0].astype(np.uint8) * 255)
            content[bound] = files[-1].name
    write_text(folder / f"{name}.json", json.dumps(content, indent=2) + "\n")
    return [*files, folder / f"{name}.json"]


def check_same_picture(folder: str | Path, name: str, picture: str | Path) -> None:
    """Raise `RuacError` if the answer named so in `folder` is not one to this `picture`: nothing is overwritten."""
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        return
    try:
        of = json.loads(path.read_text(encoding="utf-8"))["picture"]
        same = of["sha256"] == sha256(picture)
    except (OSError, ValueError, KeyError, TypeError):
        of, same = {"file": "?"}, False
    if not same:
        raise RuacError(f"{path}: holds an answer to another picture ({of['file']}), expected a folder of its own")


def _entry(mask: np.ndarray, score: float, uncertainty: np.ndarray) -> dict:
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return {
        "score": float(score),
        "mean_uncertainty": float(uncertainty[mask].mean()) if mask.any() else None,
        "area": int(rle.area(code)),
        "bbox": rle.toBbox(code).tolist(),
        "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode("ascii")},
    }


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Write ``uint8`` or ``uint16`` pixels, whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
