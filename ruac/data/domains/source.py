"""Source data sets: MOSE, DAVIS, COCO."""

from collections.abc import Iterator
from pathlib import Path

from ruac.data.davis import DavisTree
from ruac.data.domains.card import Card, both
from ruac.data.domains.coded import coco
from ruac.data.domains.maps import IdMaps
from ruac.data.domains.picture import Picture, picture_id
from ruac.data.domains.places import locate


def _mose(root: Path, split: str) -> Iterator[Picture]:
    folder = locate(root, "train/JPEGImages").parent
    return _first_frames(folder, None if split == "train" else split, Path(split).stem)


def _davis(root: Path, split: str) -> Iterator[Picture]:
    folder = locate(root, "JPEGImages/480p").parent.parent
    return _first_frames(folder, f"2017/{split}", split)


def _first_frames(folder: Path, clips: str | None, split: str) -> Iterator[Picture]:
    for record in DavisTree(folder, split=clips).records:
        yield Picture(picture_id(split, f"{record.id}.png"), record.path, IdMaps((("", record.annotations[0]),)))


def _coco(root: Path, split: str) -> Iterator[Picture]:
    return coco(locate(root, f"annotations/instances_{split}2017.json"), locate(root, f"{split}2017"), split)


SOURCE = (
    Card(
        name="mose",
        title="MOSE",
        group="Source",
        page="https://henghuiding.github.io/MOSE/",
        licence="CC BY-NC-SA 4.0",
        size="1,446 clips in SAM 2's two lists",
        version="MOSEv1",
        tree="train/JPEGImages/CLIP/*.jpg, train/Annotations/CLIP/*.png",
        rule="palette index; first frame of each clip that shows an object. A split may be the path of a list of "
        "clips, such as the 200 held out by SAM 2's training code",
        splits=both("train"),
        sam=None,
        verified="the authors' README (https://github.com/henghuiding/MOSE-api); the lists in "
        "https://github.com/facebookresearch/sam2 (training/assets)",
        pictures=_mose,
    ),
    Card(
        name="davis",
        title="DAVIS 2017",
        group="Source",
        page="https://davischallenge.org",
        licence="see the page",
        size="30 validation clips",
        version="2017, 480p",
        tree="JPEGImages/480p/CLIP/*.jpg, Annotations/480p/CLIP/*.png, ImageSets/2017/val.txt",
        rule="palette index; first frame of each clip",
        splits=both("val"),
        sam=None,
        verified="the authors' reader (https://github.com/davisvideochallenge/davis2017-evaluation, davis.py); real "
        "files were read",
        pictures=_davis,
    ),
    Card(
        name="coco",
        title="COCO 2017",
        group="Source",
        page="https://cocodataset.org",
        licence="annotations CC BY 4.0; images under Flickr terms",
        size="5,000 validation images",
        version="2017",
        tree="annotations/instances_val2017.json, val2017/*.jpg",
        rule="annotation that is no crowd",
        splits=both("val"),
        sam=None,
        verified="detectron2 (https://github.com/facebookresearch/detectron2, data/datasets/builtin.py); real files "
        "were read",
        pictures=_coco,
    ),
)
