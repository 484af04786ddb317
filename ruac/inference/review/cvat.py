"""A review queue for CVAT: a COCO file with run lengths and attributes, its labels, and the order of the pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ruac.base.files import write_text
from ruac.inference.prompts_file import UNNAMED
from ruac.inference.review.queue import QueuedObject, ReviewQueue

ANNOTATIONS, LABELS, ORDER = "annotations.json", "labels.json", "pictures.txt"
ATTRIBUTES = ("risk", "reliability", "score", "expected_iou", "mean_uncertainty")


def write_cvat(queue: ReviewQueue, out: Path) -> list[Path]:
    """Write ``annotations.json`` (format COCO 1.0), ``labels.json`` (the raw labels of a task) and ``pictures.txt``.

    Images and the annotations of each are in the order of the queue. ``pictures.txt`` holds the names in that order:
    a task made of them with the sorting method ``predefined`` shows the riskiest picture first.
    """
    kinds = {kind: number for number, kind in enumerate(queue.kinds or [UNNAMED], start=1)}
    images, annotations = [], []
    for number, picture in enumerate(queue.pictures, start=1):
        height, width = picture.size
        image = {"id": number, "file_name": picture.file, "height": height, "width": width, "risk": picture.risk}
        images.append(image | {"empty_masks": picture.empty})
        for each in picture.objects:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **_annotation(each, kinds)})
    categories = [{"id": number, "name": kind, "supercategory": ""} for kind, number in kinds.items()]
    content = {"info": {}, "licenses": [], "categories": categories, "images": images, "annotations": annotations}
    write_text(out / ANNOTATIONS, json.dumps(content) + "\n")
    attributes = [
        {"name": name, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
        for name in ATTRIBUTES
    ]
    labels = [{"name": kind, "type": "mask", "attributes": attributes} for kind in kinds]
    write_text(out / LABELS, json.dumps(labels, indent=1) + "\n")
    write_text(out / ORDER, "".join(f"{picture.file}\n" for picture in queue.pictures))
    return [out / ANNOTATIONS, out / LABELS, out / ORDER]


def _annotation(each: QueuedObject, kinds: dict[str, int]) -> dict[str, Any]:
    return {
        "category_id": kinds[each.kind],
        "segmentation": {"size": list(each.segmentation["size"]), "counts": _text(each.segmentation["counts"])},
        "area": each.area,
        "bbox": each.bbox,
        "iscrowd": 0,
        "score": each.numbers["reliability"],
        "attributes": {"occluded": False} | {name: each.numbers[name] for name in ATTRIBUTES},
    }


def _text(counts: str | bytes) -> str:
    return counts if isinstance(counts, str) else counts.decode("ascii")
