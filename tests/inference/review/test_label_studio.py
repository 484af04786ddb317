"""Brush masks, by a decoder written here from the format's description and by Label Studio's own."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ruac.inference.review.label_studio import encode_brush, write_label_studio
from ruac.inference.review.queue import read_queue


def decode(data):
    """thi.ng's rle-pack: a stream of bits, literals as well as runs."""
    bits = "".join(f"{byte:08b}" for byte in data)
    place = 0

    def take(count):
        nonlocal place
        place += count
        assert place <= len(bits)
        return int(bits[place - count : place], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values = []
    while len(values) < total:
        run = take(1)
        length = take(sizes[take(2)]) + 1
        values += [take(word)] * length if run else [take(word) for _ in range(length)]
    assert len(values) == total
    assert len(bits) - place < 8
    return np.array(values, np.uint8)


def masks():
    rng = np.random.default_rng(0)
    whole = np.ones((300, 200), bool)  # a run of more than 2^16 bytes
    line = np.zeros((5, 7), bool)
    line[2] = True
    first = np.zeros((1, 3), bool)
    first[0, 0] = True
    exact = np.zeros((128, 256), bool)
    exact[:64] = True  # 65536 bytes of each
    return [rng.random((13, 17)) < share for share in (0.1, 0.5, 0.9)] + [whole, ~whole, line, first, ~first, exact]


@pytest.mark.parametrize("mask", masks())
def test_brush_masks_by_an_independent_decoder(mask):
    rgba = decode(encode_brush(mask)).reshape(*mask.shape, 4)
    assert (rgba == np.where(mask, 255, 0)[..., None]).all()


def test_the_queue_is_in_the_tasks(predicted, tmp_path):
    queue = read_queue(predicted.folder)
    tasks, config = write_label_studio(queue, tmp_path, prefix="http://host/")
    tasks = json.loads(tasks.read_text())
    assert [task["data"]["image"] for task in tasks][2:] == ["http://host/sub/c.png", "http://host/a%20b.png"]
    assert [task["data"]["risk"] for task in tasks] == [picture.risk for picture in queue.pictures]
    assert tasks[0]["predictions"][0]["result"] == []
    root = ET.fromstring(config.read_text())
    assert [label.get("value") for label in root.iter("Label")] == ["cat & <dog>", "object"]
    (brush,) = root.iter("BrushLabels")
    (image,) = root.iter("Image")
    assert image.get("value") == "$image"
    for task, picture in zip(tasks, queue.pictures, strict=True):
        (prediction,) = task["predictions"]
        assert prediction["score"] == 1 - picture.risk
        for region, each in zip(prediction["result"], picture.objects, strict=True):
            assert (region["from_name"], region["to_name"]) == (brush.get("name"), image.get("name"))
            assert region["score"] == each.numbers["reliability"]


def test_label_studio_reads_them(predicted, tmp_path):
    brush = pytest.importorskip("label_studio_sdk.converter.brush", reason="needs label-studio-sdk")
    from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config
    from label_studio_sdk.label_interface import LabelInterface

    tasks, config = write_label_studio(read_queue(predicted.folder), tmp_path)
    (name, parsed), *others = parse_config(config.read_text()).items()
    assert not others
    assert parsed["labels"] == ["cat & <dog>", "object"]
    seen = 0
    for task in json.loads(tasks.read_text()):
        interface = LabelInterface(config.read_text())
        assert interface.validate_task({"data": task["data"]})
        assert interface.validate_prediction(task["predictions"][0])
        for region in task["predictions"][0]["result"]:
            flat = {key: region[key] for key in ("type", "original_width", "original_height")} | region["value"]
            (mask,) = brush.decode_from_annotation(name, [flat]).values()
            file = task["data"]["image"].split("?d=")[1].replace("%20", " ")
            expected = predicted.masks[file, int(region["id"].split("-")[1])]
            assert ((mask > 0) == expected).all()
            seen += 1
    assert seen == 4
