"""Shared formats of the miniature trees: writers that return the masks that were drawn."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

HEIGHT, WIDTH = 24, 32
EMPTY = np.zeros((HEIGHT, WIDTH), bool)


def rect(x0, y0, x1, y1):
    mask = EMPTY.copy()
    mask[y0:y1, x0:x1] = True
    return mask


def corners(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


BOX, OVER, SMALL = (3, 4, 15, 14), (10, 8, 24, 20), (28, 1, 29, 2)  # the first two overlap; one pixel
RIGHT = (26, 4, 32, 20)  # beside them
RING = rect(2, 2, 20, 18) & ~rect(6, 6, 12, 12)  # has a hole
ELL = [4, 4, 12, 4, 12, 8, 8, 8, 8, 16, 4, 16]
ELL_MASK = rect(4, 4, 12, 8) | rect(4, 4, 8, 16)


def write_image(path: Path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    Image.fromarray(pixels).save(path, kind)


def write_map(path: Path, values, palette=False):
    """A one-channel PNG: 16 bit if a value needs it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8 if np.max(values) < 256 else np.uint16))
    if palette:
        image = Image.fromarray(np.asarray(values, np.uint8), "P")
        image.putpalette([7, 200, 30] * 256)
    image.save(path, "PNG")


def number_map(*pairs):
    """``(value, mask)`` painted one over the other, and what is left of each."""
    numbers = np.zeros((HEIGHT, WIDTH), np.int64)
    for value, mask in pairs:
        numbers[mask] = value
    return numbers, {value: numbers == value for value, _ in pairs}


def write_json(path: Path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def code(mask, plain=False):
    encoded = rle.encode(np.asfortranarray(mask, np.uint8))
    if not plain:
        return {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}
    flat = np.concatenate([[0], mask.ravel(order="F").astype(int), [1 - int(mask[-1, -1])]])
    edges = np.flatnonzero(np.diff(flat))
    return {"size": [HEIGHT, WIDTH], "counts": np.diff(np.concatenate([[0], edges])).tolist()}


def coco_tree(file: Path, images: Path, names, stored=lambda name: name):
    """Three pictures: polygons that overlap; RLE with a hole, an object without a pixel; only a crowd."""
    for seed, name in enumerate(names):
        write_image(images / name, seed)
    annotations = [
        {"id": 11, "image_id": 1, "segmentation": [corners(*BOX)]},
        {"id": 12, "image_id": 1, "segmentation": [corners(*OVER), corners(*SMALL)]},
        {"id": 13, "image_id": 2, "segmentation": code(RING)},
        {"id": 14, "image_id": 2, "segmentation": code(rect(*OVER), plain=True)},
        {"id": 15, "image_id": 2, "segmentation": [[1, 1, 2, 2]]},
        {"id": 16, "image_id": 3, "segmentation": code(RING, plain=True), "iscrowd": 1},
    ]
    entries = [
        {"id": number, "file_name": stored(name), "width": WIDTH, "height": HEIGHT}
        for number, name in enumerate(names, start=1)
    ]
    write_json(file, {"images": entries, "annotations": annotations, "categories": []})
    first = {"11": rect(*BOX), "12": rect(*OVER) | rect(*SMALL)}
    return {names[0]: first, names[1]: {"13": RING, "14": rect(*OVER)}}


def via_tree(file: Path, images: Path, names, regions=list):
    """A polygon and a closed polyline; a picture without a region; a rectangle, which is not read."""

    def shape(kind, points):
        return {"shape_attributes": {"name": kind, "all_points_x": points[::2], "all_points_y": points[1::2]}}

    shapes = [shape("polygon", corners(*BOX)), shape("polyline", ELL), {"shape_attributes": {"name": "rect", "x": 1}}]
    content = {}
    for seed, name in enumerate(names):
        write_image(images / name, seed)
        chosen = shapes if seed == 0 else []
        listed = chosen if regions is list else {str(n): s for n, s in enumerate(chosen)}
        content[f"{name}{seed}"] = {"filename": name, "size": 1, "regions": listed}
    write_json(file, content)
    return {names[0]: {"0": rect(*BOX), "1": ELL_MASK}}


def map_tree(pairs, values=(1, 2), palette=False):
    """For each ``(image, map)``: two objects; the last picture is empty. By position."""
    expected = {}
    for seed, (image, path) in enumerate(pairs):
        write_image(image, seed)
        objects = [(values[0], rect(*BOX)), (values[1], rect(*OVER))] if seed < len(pairs) - 1 else []
        numbers, masks = number_map(*objects)
        write_map(path, numbers, palette)
        expected[seed] = {str(value): mask for value, mask in sorted(masks.items())}
    return [expected[seed] for seed in range(len(pairs) - 1)]


def png(split, expected):
    """Ids as the package makes them: the split, the path, always .png."""
    return {f"{split}/{name.rpartition('.')[0] or name}.png": objects for name, objects in expected.items()}
