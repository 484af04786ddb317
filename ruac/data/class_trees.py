"""Pascal VOC 2012 and Cityscapes as they are downloaded, as folders with classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ruac.base.errors import RuacError
from ruac.data.classes import IGNORE, LabelMaps
from ruac.data.sample import read_list

VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
# Cityscapes' ids of the 19 classes that are evaluated; all others are unknown.
CITYSCAPES = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light"},
    **{20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car"},
    **{27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"},
}


class VocTree(LabelMaps):
    """``JPEGImages/``, ``ImageSets/Segmentation/*.txt`` (lists: train, val, trainval) and ``SegmentationClass/``; a map
    that ``SegmentationClassAug/`` has as well is read there. Class 0 is the background, value 255 is unknown."""

    def __init__(self, root: Path, background: bool):
        if not background:
            raise RuacError(f"{root}: Pascal VOC has a background; expected background=true")
        lists = root / "ImageSets" / "Segmentation"
        stems = sorted({stem for path in sorted(lists.glob("*.txt")) for stem in read_list(path)})
        if not stems:
            raise RuacError(f"{lists}: expected lists of pictures, train.txt and val.txt")
        labels = {}
        for stem in stems:
            more = root / "SegmentationClassAug" / f"{stem}.png"
            own = root / "SegmentationClass" / f"{stem}.png"
            labels[root / "JPEGImages" / f"{stem}.jpg"] = more if more.is_file() else own
        super().__init__(lists, list(VOC), background, labels)


class CityscapesTree(LabelMaps):
    """``leftImg8bit/{train,val}/CITY/`` and ``gtFine/``; names of lists are files ``NAME.txt`` in the root."""

    def __init__(self, root: Path, background: bool):
        if background:
            raise RuacError(f"{root}: Cityscapes has no background; expected background=false")
        labels = {}
        for split in ("train", "val"):
            for picture in sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png")):
                stem = picture.stem.removesuffix("_leftImg8bit")
                labels[picture] = root / "gtFine" / split / picture.parent.name / f"{stem}_gtFine_labelIds.png"
        if not labels:
            raise RuacError(f"{root / 'leftImg8bit'}: expected pictures train/CITY/*_leftImg8bit.png")
        super().__init__(root, list(CITYSCAPES.values()), background, labels)
        self._table = np.full(256, IGNORE, np.int32)
        self._table[list(CITYSCAPES)] = np.arange(len(CITYSCAPES))

    def classes_of(self, ids: np.ndarray) -> np.ndarray:
        return self._table[ids.clip(0, 255)]


def open_tree(root: Path, background: bool) -> LabelMaps:
    """The tree at `root`. Raises `RuacError` where it is none that is known."""
    if (root / "JPEGImages").is_dir():
        return VocTree(root, background)
    if (root / "leftImg8bit").is_dir():
        return CityscapesTree(root, background)
    raise RuacError(
        f"{root}: expected annotations.json, or labels/ and classes.txt, beside images/; "
        "or Pascal VOC (JPEGImages/) or Cityscapes (leftImg8bit/)"
    )
