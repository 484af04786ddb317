"""Checking a download and converting it: counts, sample panels, the common COCO folder with its manifest."""

from __future__ import annotations

import colorsys
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ruac.base.files import atomic_path, write_text
from ruac.base.version import VERSION
from ruac.data.domains.dataset import NativeDataset
from ruac.data.sample import Sample
from ruac.data.write import write_coco

PANELS = 8
PANEL = 320  # pixels of a panel's longer side


def describe(dataset: NativeDataset) -> str:
    """What was found, in lines for a person: counts, what was left out, the SAM paper's counts beside them."""
    card, found = dataset.card, dataset.found
    kept = sum(len(record.object_ids) for record in dataset.records)
    lines = [
        f"{card.title}, split {' + '.join(dataset.splits)}, in {dataset.root}",
        f"found: {found.listed} images; looked into {found.indexed}: {found.objects} objects, "
        f"{found.empty} images without an object, {found.dropped} objects without a pixel (left out)",
        f"used: {len(dataset)} images, {kept} objects" + (", a random sample" if found.sampled else ", all of them"),
    ]
    if card.sam is not None:
        images, masks = card.sam
        lines.append(f"SAM paper: {images} images, {masks} objects: {_compare((len(dataset), kept), card.sam)}")
    lines.append(f"format checked against: {card.verified}")
    return "\n".join(lines)


def convert(dataset: NativeDataset, out: Path, progress: Callable[[int], None] | None = None) -> None:
    """Write `dataset` as a COCO folder with a ``manifest.json``: card, protocol, counts, ids and their hash.

    Raises `RuacError` if `out` is not empty or a file of the download is broken; then nothing is written.
    """
    write_coco((dataset[index] for index in range(len(dataset))), out, progress=progress)
    ids = {record.id: record.object_ids for record in dataset.records}
    content = {
        "domain": dataset.name,
        "title": dataset.card.title,
        "version": dataset.card.version,
        "licence": dataset.card.licence,
        "splits": dataset.splits,
        "seed": dataset.seed if dataset.found.sampled else None,
        "found": vars(dataset.found),
        "ruac": VERSION,
        "sha256": hashlib.sha256(json.dumps(ids, sort_keys=True).encode()).hexdigest(),
        "images": list(ids),
    }
    write_text(out / "manifest.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def save_panels(dataset: NativeDataset, path: Path, count: int = PANELS) -> None:
    """Draw `count` pictures with their masks, evenly spaced over the data set, as one PNG. Reads those pictures."""
    which = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int))
    tiles = [_panel(dataset[int(index)]) for index in which]
    sheet = Image.new("RGB", (PANEL * min(4, len(tiles)), PANEL * -(-len(tiles) // 4)), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (PANEL * (number % 4), PANEL * (number // 4)))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def _panel(sample: Sample) -> Image.Image:
    painted = sample.image.astype(np.float32)
    for number, mask in enumerate(sample.masks):
        colour = np.multiply(colorsys.hsv_to_rgb(number * 0.618 % 1, 0.9, 1), 255)
        painted[mask] = 0.45 * painted[mask] + 0.55 * colour
    tile = Image.fromarray(painted.astype(np.uint8))
    tile.thumbnail((PANEL - 4, PANEL - 4))
    return tile


def _compare(used: tuple[int, int], sam: tuple[int, int]) -> str:
    if used == sam:
        return "the same"
    changes = [
        f"{(a - b) / b:+.1%} {what}" for a, b, what in zip(used, sam, ("images", "objects"), strict=True) if a != b
    ]
    return ", ".join(changes)
