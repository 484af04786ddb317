"""A review queue for Label Studio: tasks with brush masks as predictions, and the labelling config that shows them.

Masks are in Label Studio's own run lengths, those of the package ``rle-pack`` of thi.ng/umbrella, over the bytes of an
RGBA picture. Its encoder is in ``label-studio-sdk``, which would bring older versions of Pillow, numpy and pandas.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from ruac.base.files import write_text
from ruac.base.version import VERSION
from ruac.inference.prompts_file import UNNAMED
from ruac.inference.review.queue import QueuedPicture, ReviewQueue

TASKS, CONFIG = "tasks.json", "config.xml"
LOCAL_FILES = "/data/local-files/?d="
MASKS, IMAGE = "masks", "image"  # names of the two tags of the config
_SIZES = (3, 4, 8, 16)  # bits that may hold the length of a run


def write_label_studio(queue: ReviewQueue, out: Path, *, prefix: str = LOCAL_FILES) -> list[Path]:
    """Write ``tasks.json``, in the order of the queue, and ``config.xml``. prefix: before every picture's name.

    A task's data has the risk, to sort by; its prediction's score, and that of every region, is the reliability.
    """
    tasks = [_task(picture, prefix) for picture in queue.pictures]
    write_text(out / TASKS, json.dumps(tasks) + "\n")
    labels = "".join(f"    <Label value={quoteattr(kind)}/>\n" for kind in queue.kinds or [UNNAMED])
    write_text(
        out / CONFIG,
        f'<View>\n  <Image name="{IMAGE}" value="$image"/>\n'
        f'  <BrushLabels name="{MASKS}" toName="{IMAGE}">\n{labels}  </BrushLabels>\n</View>\n',
    )
    return [out / TASKS, out / CONFIG]


def _task(picture: QueuedPicture, prefix: str) -> dict[str, Any]:
    height, width = picture.size
    regions = [
        {
            "id": f"object-{each.id}",
            "from_name": MASKS,
            "to_name": IMAGE,
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": each.numbers["reliability"],
            "value": {"format": "rle", "rle": encode_brush(each.mask), "brushlabels": [each.kind]},
        }
        for each in picture.objects
    ]
    data = {"image": prefix + quote(picture.file), "risk": picture.risk, "empty_masks": picture.empty}
    prediction = {"model_version": f"ruac {VERSION}", "score": 1 - picture.risk, "result": regions}
    return {"data": data, "predictions": [prediction]}


def encode_brush(mask: np.ndarray) -> list[int]:
    """``bool [H, W]`` as the bytes of a brush: a header, and a run for every stretch of equal pixels.

    Header: number of bytes (32 bits), bits of a byte less 1 (5), and four bit counts less 1 (4 each). A run: 1, which
    of the bit counts (2), its length less 1 in so many bits, its byte (8).
    """
    flat = mask.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=not flat[0]))
    lengths = np.diff(starts, append=len(flat)) * 4  # red, green, blue and alpha alike
    bits = [f"{flat.size * 4:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        byte = f"{255 if flat[start] else 0:08b}"
        while length:
            some = min(length, 1 << _SIZES[-1])
            place = next(place for place, size in enumerate(_SIZES) if some <= 1 << size)
            bits.append(f"1{place:02b}{some - 1:0{_SIZES[place]}b}{byte}")
            length -= some
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))
