"""Write samples as a COCO folder that is either whole or absent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from ruac.base.errors import RuacError
from ruac.base.files import atomic_folder
from ruac.data.sample import IMAGE_SUFFIXES, Sample


def write_coco(
    samples: Iterable[Sample],
    out: str | Path,
    *,
    splits: Mapping[str, Iterable[str]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write `samples` to the new folder `out`: PNG images, ``annotations.json``, and a list per split.

    Masks become compressed RLE, so that `CocoFolder` gives back the same pixels, masks and object
    ids. splits: names of ``<split>.txt`` files and the record ids in each. progress: called with
    the number of samples written after each one. Everything is written beside `out` and renamed at
    the end; on any exception nothing remains.

    Raises `RuacError` if `out` exists and is not empty, cannot be written, or two records share a file name.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RuacError(f"{out}: exists already, expected a new or empty folder")
    with atomic_folder(out, last="annotations.json") as folder:
        (folder / "images").mkdir()
        _write_into(folder, samples, splits or {}, progress)


def _write_into(
    folder: Path,
    samples: Iterable[Sample],
    splits: Mapping[str, Iterable[str]],
    progress: Callable[[int], None] | None,
) -> None:
    images: list[dict] = []
    annotations: list[dict] = []
    names: dict[str, str] = {}
    for number, sample in enumerate(samples, start=1):
        record = sample.record
        file_name = _file_name(record.id)
        if file_name in names.values():
            raise RuacError(f"{record.path}: a second image would be written to images/{file_name}")
        names[record.id] = file_name
        path = folder / "images" / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.image).save(path, compress_level=4)
        height, width = sample.image.shape[:2]
        entry = {"id": number, "file_name": file_name, "width": width, "height": height}
        images.append(entry | ({"origin": record.origin} if record.origin else {}))
        for object_id, mask in zip(record.object_ids, sample.masks, strict=True):
            annotations.append(_annotation(len(annotations) + 1, number, object_id, mask))
        if progress is not None:
            progress(number)
    if not images:
        raise RuacError("no samples to write")
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    for split, ids in splits.items():
        (folder / f"{split}.txt").write_text("".join(f"{names[key]}\n" for key in ids), encoding="utf-8")


def _annotation(number: int, image: int, object_id: str, mask: np.ndarray) -> dict:
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "object_id": object_id,
        "area": int(rle.area(code)),
        "bbox": rle.toBbox(code).tolist(),
        "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode("ascii")},
    }


def _file_name(record_id: str) -> str:
    path = PurePosixPath(record_id)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise RuacError(f"image id {record_id!r}: expected a relative path")
    return str(path.with_suffix(".png")) if path.suffix.lower() in IMAGE_SUFFIXES else f"{path}.png"
