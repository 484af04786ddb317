"""Objects: TrashCan, iShape, ZeroWaste-f, LVIS, NDD20, Plittersdorf, TimberSeg, DRAM."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from ruac.data.domains.card import Card, both
from ruac.data.domains.coded import coco, via
from ruac.data.domains.maps import paired_maps, read_classes
from ruac.data.domains.picture import Picture
from ruac.data.domains.places import locate
from ruac.data.id_masks import read_ids

ISHAPE = ("antenna", "branch", "fence", "hanger", "log", "wire")


def _trashcan(root: Path, split: str) -> Iterator[Picture]:
    file = locate(root, f"instance_version/instances_{split}_trashcan.json")
    return coco(file, file.parent / split, split)


def _ishape(root: Path, split: str) -> Iterator[Picture]:
    for part in ISHAPE:
        folder = locate(root, f"{part}/{split}/instance_map").parent
        yield from paired_maps(folder / "instance_map", folder / "image", f"{split}/{part}", read=read_ishape)


def read_ishape(path: Path) -> np.ndarray:
    """``class * 1000 + k`` is instance k of a class; numbers below 1000 are no objects."""
    ids = read_ids(path)
    return np.where(ids >= 1000, ids, 0)


def _zerowaste(root: Path, split: str) -> Iterator[Picture]:
    file = locate(root, f"splits_final_deblurred/{split}/labels.json")
    return coco(file, file.parent / "data", split)


def _lvis(root: Path, split: str) -> Iterator[Picture]:
    images = locate(root, f"{split}2017")

    def rename(name: str) -> str:
        return name[-16:] if name.startswith("COCO_") else name  # names of the 2014 release

    return coco(locate(root, f"lvis_v0.5_{split}.json"), images, split, rename=rename)


def _ndd20(root: Path, split: str) -> Iterator[Picture]:
    for part in ("ABOVE", "BELOW"):
        file = locate(root, f"{part}_LABELS.json")
        yield from via(file, file.parent / part, f"{split}/{part}")


def _plittersdorf(root: Path, split: str) -> Iterator[Picture]:
    file = locate(root, f"{split}.json")
    return coco(file, file.parent / "images", split)


def _timberseg(root: Path, split: str) -> Iterator[Picture]:
    file = locate(root, "prescaled/coco_annotation.json")
    return coco(file, file.parent / "images", split, rename=lambda name: PurePosixPath(name).name)


def _dram(root: Path, split: str) -> Iterator[Picture]:
    return paired_maps(locate(root, "labels"), locate(root, split), split, read=read_classes)


OBJECTS = (
    Card(
        name="trashcan",
        title="TrashCan 1.0",
        group="Objects",
        page="https://conservancy.umn.edu/handle/11299/214865",
        licence="see the page",
        size="7,212 images",
        version="1.0, instance version",
        tree="instance_version/instances_train_trashcan.json, instance_version/train/*.jpg",
        rule="COCO annotation",
        splits=both("train"),
        sam=(5936, 9540),
        verified="README of the download; Dataset Ninja's converter for the keys "
        "(https://github.com/dataset-ninja/trash-can)",
        pictures=_trashcan,
    ),
    Card(
        name="ishape",
        title="iShape",
        group="Objects",
        page="https://ishape.github.io",
        licence="CC0",
        size="4.5 GB",
        version="ishape_dataset.tar",
        tree="{antenna,branch,fence,hanger,log,wire}/val/image/*.jpg and instance_map/*.png (16 bit)",
        rule="number from 1000 on in the instance map, as the authors' converter to COCO takes them; all six parts, "
        "parts of one object may be apart",
        splits=both("val"),
        sam=(754, 9742),
        verified="the authors' README (https://github.com/iShape/iShape.github.io, dataset_README.md) and converter "
        "(https://github.com/iShape/build_synthetic_ishape, tool/instance_map_to_coco.py)",
        pictures=_ishape,
    ),
    Card(
        name="zerowaste",
        title="ZeroWaste-f",
        group="Objects",
        page="https://zenodo.org/record/6412647",
        licence="CC BY-NC 4.0",
        size="7.5 GB",
        version="zerowaste-f-final.zip",
        tree="splits_final_deblurred/train/labels.json, splits_final_deblurred/train/data/*.PNG",
        rule="COCO annotation",
        splits=both("train"),
        sam=(2947, 6155),
        verified="several public loaders for folders and labels.json, MESS for the archive "
        "(https://github.com/blumenstiel/MESS, prepare_zerowaste.py)",
        pictures=_zerowaste,
    ),
    Card(
        name="lvis",
        title="LVIS v0.5",
        group="Objects",
        page="https://www.lvisdataset.org/dataset",
        licence="annotations CC BY 4.0; images under Flickr terms",
        size="not known",
        version="0.5",
        tree="lvis_v0.5_val.json, val2017/*.jpg of COCO",
        rule="annotation; objects overlap",
        splits=both("val"),
        sam=(945, 9642),
        verified="detectron2 (https://github.com/facebookresearch/detectron2, data/datasets/lvis.py and builtin.py), "
        "which shows the 2014 file names; an excerpt of the real file was read",
        pictures=_lvis,
    ),
    Card(
        name="ndd20",
        title="Northumberland Dolphin Dataset 2020",
        group="Objects",
        page="https://doi.org/10.25405/data.ncl.c.4982342",
        licence="CC BY-NC-SA 4.0",
        size="4,402 images",
        version="NDD20.zip",
        tree="ABOVE_LABELS.json, ABOVE/*.jpg, BELOW_LABELS.json, BELOW/*.jpg",
        rule="VIA region (polygon, or polyline); the few of two points have no pixel. Outlines are open: closing "
        "them, without "
        "which they have no inside, adds an edge of ours. ABOVE and BELOW share file names, so ids begin with the part",
        splits=both("train"),
        sam=(4402, 6100),
        verified="wildlife-datasets' loader (https://github.com/WildlifeDatasets/wildlife-datasets, NDD20); the data "
        "set's paper for 2,939 + 3,163 regions; the set has no split of its own. How an outline is closed is inferred",
        pictures=_ndd20,
    ),
    Card(
        name="plittersdorf",
        title="Plittersdorf (SOCRATES stereo camera trap)",
        group="Objects",
        page="https://doi.org/10.5281/zenodo.7035934",
        licence="see the page",
        size="not known",
        version="plittersdorf_instance_segmentation_coco",
        tree="{train,val,test}.json, images/*.jpg",
        rule="COCO annotation; its polygons are united, so holes are filled: the authors' converter writes inner "
        "contours too",
        splits={"ruac": ("train",), "sam1": ("train", "val", "test")},
        sam=(187, 546),
        verified="the authors' converter (https://github.com/timmh/socrates, utils/ritm_to_coco.py) and a public "
        "evaluation on these 23 sets for the names of the three splits; the converter itself writes train and val "
        "only, "
        "test is inferred",
        pictures=_plittersdorf,
    ),
    Card(
        name="timberseg",
        title="TimberSeg 1.0",
        group="Objects",
        page="https://data.mendeley.com/datasets/y5npsm3gkj/2",
        licence="CC BY 4.0",
        size="220 images",
        version="1.0, Mendeley version 2, prescaled images",
        tree="prescaled/coco_annotation.json, prescaled/images/*.png",
        rule="COCO annotation: a log",
        splits=both("train"),
        sam=(220, 2487),
        verified="Dataset Ninja's converter (https://github.com/dataset-ninja/timber-seg) and the authors' training "
        "script; the set has no split of its own. A second file, coco_annotation_rotated.json, exists and is not read",
        pictures=_timberseg,
    ),
    Card(
        name="dram",
        title="Diverse Realism in Art Movements",
        group="Objects",
        page="https://faculty.runi.ac.il/arik/site/artseg/Dram-Dataset.html",
        licence="see the page",
        size="not known",
        version="DRAM_processed.zip, which holds DRAM_processed.rar",
        tree="test/**/*.jpg, labels/**/*.png",
        rule="class of the picture (all its pixels); 0 is background, 255 ignored",
        splits=both("test"),
        sam=(718, 1179),
        verified="MESS (https://github.com/blumenstiel/MESS, prepare_dram.py) for folders and values",
        pictures=_dram,
    ),
)
