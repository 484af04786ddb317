"""Scene parsing: Cityscapes, ADE20K, Hypersim, WoodScape, STREETS, NDISPark, DOORS."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ruac.base.errors import RuacError, keys_of
from ruac.base.files import read_json
from ruac.data.domains.card import Card, both
from ruac.data.domains.coded import Coded, Entry, coco, list_of, via
from ruac.data.domains.maps import IdMaps, MaskFiles, hdf5_size, paired_maps, read_hdf5
from ruac.data.domains.picture import Picture, picture_id
from ruac.data.domains.places import NotThere, files_in, image_in, locate, pair
from ruac.data.id_masks import read_ids
from ruac.data.sample import opened, read_list

# Label ids that Cityscapes' own panoptic conversion evaluates; the others are void or groups.
CITYSCAPES_STUFF = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23)
CITYSCAPES_THINGS = (24, 25, 26, 27, 28, 31, 32, 33)
HYPERSIM_SPLIT = "metadata_images_split_scene_v1.csv"
HYPERSIM_LEFT_OUT = (20, 25, 40, 49)


def _cityscapes(root: Path, split: str) -> Iterator[Picture]:
    masks, images = locate(root, f"gtFine/{split}"), locate(root, f"leftImg8bit/{split}")
    ends = {"mask_end": "_gtFine_instanceIds.png", "image_end": "_leftImg8bit.png"}
    return paired_maps(masks, images, split, read=read_cityscapes, **ends)


def read_cityscapes(path: Path) -> np.ndarray:
    """``class * 1000 + k`` is instance k of a class, a number below 1000 a class."""
    ids = read_ids(path)
    instance = (ids >= 1000) & np.isin(ids // 1000, CITYSCAPES_THINGS)
    return np.where(instance | np.isin(ids, CITYSCAPES_STUFF), ids, 0)


def _ade20k(root: Path, split: str) -> Iterator[Picture]:
    try:
        folder = locate(root, f"images/ADE/{split}")
    except RuacError:
        folder = locate(root, f"images/{split}")  # the release of 2016
    for key, seg, image in pair(folder, folder, mask_end="_seg.png", image_end=".jpg"):
        parts = sorted(seg.parent.glob(f"{image.stem}_parts_*.png"))
        layers = [("", seg), *((f"part{path.stem.rpartition('_')[2]}/", path) for path in parts)]
        yield Picture(picture_id(split, f"{key}.png"), image, IdMaps(tuple(layers), read_ade20k))


def read_ade20k(path: Path) -> np.ndarray:
    """Class ``R // 10 * 256 + G`` (0: none) and instance B as one number, ``class * 256 + B``."""
    with opened(path) as image:
        if image.mode not in ("RGB", "RGBA"):
            raise RuacError(f"{path}: has mode {image.mode}, expected RGB with class and instance")
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.int32), 2, 0)
    classes = red // 10 * 256 + green
    return np.where(classes > 0, classes * 256 + blue, 0)


def _hypersim(root: Path, split: str) -> Iterator[Picture]:
    keep = _hypersim_split(locate(root, HYPERSIM_SPLIT), split) if split != "volumes" else None
    found = False
    around = (sorted(root.glob(f"{'*/' * depth}ai_*")) for depth in range(3))
    for scene in [root] if root.name.startswith("ai_") else next(filter(None, around), []):
        for file in sorted(scene.glob("images/scene_cam_*_geometry_hdf5/frame.*.semantic_instance.hdf5")):
            camera, frame = file.parent.name.removesuffix("_geometry_hdf5"), file.name.split(".")[1]
            if (scene.name, camera.removeprefix("scene_"), int(frame)) in keep if keep else _in_volumes(scene.name):
                found = True
                name = f"{camera}_final_preview/frame.{frame}.tonemap.jpg"
                image = image_in(scene / "images", name, file.name)
                key = picture_id(split, f"{scene.name}/{camera}/frame.{frame}.png")
                yield Picture(key, image, IdMaps((("", file),), read_hdf5, none=-1, size=hdf5_size))
    if not found:
        raise NotThere(f"{root}: no scene of {split!r}; expected ai_VVV_NNN/images/scene_cam_XX_geometry_hdf5")


def _hypersim_split(file: Path, split: str) -> set[tuple[str, str, int]]:
    with open(file, encoding="utf-8-sig", newline="") as stream, keys_of(str(file)):
        rows = [row for row in csv.DictReader(stream) if row["split_partition_name"] == split]
        return {(row["scene_name"], row["camera_name"], int(row["frame_id"])) for row in rows}


def _in_volumes(scene: str) -> bool:
    volume = scene.split("_")[1]
    return volume.isdecimal() and 1 <= int(volume) <= 55 and int(volume) not in HYPERSIM_LEFT_OUT


def _woodscape(root: Path, split: str) -> Iterator[Picture]:
    images, files = locate(root, "rgb_images"), locate(root, "instance_annotations")
    pictures = {path.name: path for path in files_in(images, ".png")}  # archives may hold a folder of their own name
    for file in files_in(files, ".json"):
        if (image := pictures.get(f"{file.stem}.png")) is None:
            content = read_json(file)
            if not isinstance(content, dict) or file.name not in content:
                continue  # class_info.json and the like: an annotation names itself
            raise RuacError(f"{images / file.stem}.png: image not found; {file.name} names it")
        yield Picture(picture_id(split, image.name), image, Coded(file, woodscape))


def woodscape(file: Path) -> tuple[Entry, ...]:
    """One polygon per entry, as a list of points; the id is the entry's number."""
    content = read_json(file)
    with keys_of(str(file)):
        entries = list_of(content[file.name], "annotation", file)
        return tuple((str(n), [[c for point in e["segmentation"] for c in point]]) for n, e in enumerate(entries))


def _streets(root: Path, split: str) -> Iterator[Picture]:
    file = locate(root, "annotations/vehicle-annotations.json")
    return via(file, file.parent.parent / "images", split)


def _ndispark(root: Path, split: str) -> Iterator[Picture]:
    name = "val" if split == "validation" else split
    file = locate(root, f"{split}/{name}_coco_annotations.json")
    return coco(file, file.parent / "imgs", split)


def _doors(root: Path, split: str) -> Iterator[Picture]:
    names = locate(root, f"DS1/DS/{split}.txt")
    for name in read_list(names):
        image = image_in(names.parent / "img", name, names.name)
        mask = image_in(names.parent / "mask", name, names.name)
        yield Picture(picture_id(split, name), image, MaskFiles((mask,)))


SCENE_PARSING = (
    Card(
        name="cityscapes",
        title="Cityscapes",
        group="Scenes",
        page="https://www.cityscapes-dataset.com",
        licence="own, non-commercial",
        size="500 validation images",
        version="gtFine, leftImg8bit",
        tree="leftImg8bit/val/*/*_leftImg8bit.png, gtFine/val/*/*_gtFine_instanceIds.png (16 bit)",
        rule="instance or stuff class, those of the panoptic benchmark; void and groups left out",
        splits=both("val"),
        sam=(293, 9973),
        verified="cityscapesScripts (https://github.com/mcordts/cityscapesScripts: README, helpers/labels.py, "
        "preparation/createPanopticImgs.py); real files were read",
        pictures=_cityscapes,
    ),
    Card(
        name="ade20k",
        title="ADE20K (full)",
        group="Scenes",
        page="https://groups.csail.mit.edu/vision/datasets/ADE20K/",
        licence="see the page",
        size="2,000 validation images",
        version="2021_17_01 (2016_07_26 works too)",
        tree="images/ADE/validation/**/*.jpg, *_seg.png, *_parts_*.png",
        rule="instance of a class, and part (class and instance of each parts file)",
        splits=both("validation"),
        sam=(302, 10128),
        verified="the authors' README, sample tree and reader of the colour code "
        "(https://github.com/CSAILVision/ADE20K, utils/utils_ade20k.py); the folders of the 2016 release in a public "
        "evaluation. Counts of objects on real files of 2021 equal those of the JSON shipped with them",
        pictures=_ade20k,
    ),
    Card(
        name="hypersim",
        title="Hypersim",
        group="Scenes",
        page="https://github.com/apple/ml-hypersim",
        licence="CC BY-SA 3.0",
        size="1.9 TB, 74,619 images",
        version="evermotion_dataset",
        tree="ai_VVV_NNN/images/scene_cam_XX_geometry_hdf5/frame.IIII.semantic_instance.hdf5, "
        "scene_cam_XX_final_preview/frame.IIII.tonemap.jpg; for a split also metadata_images_split_scene_v1.csv "
        "(evermotion_dataset/analysis/ of the project's repository)",
        rule="instance number; -1 is none. Any part of the scenes will do. sam1: volumes 1-55 but 20, 25, 40, 49",
        splits={"ruac": ("train",), "sam1": ("volumes",)},
        sam=(338, 9445),
        verified="the authors' README, CSV and the script that writes the maps, -1 or from 1 on "
        "(https://github.com/apple/ml-hypersim, scene_generate_images_semantic_segmentation.py). Previews without "
        "geometry "
        "have no masks and are left out",
        pictures=_hypersim,
    ),
    Card(
        name="woodscape",
        title="WoodScape",
        group="Scenes",
        page="https://github.com/valeoai/WoodScape",
        licence="own, see the page",
        size="8.2K images",
        version="first release (set 1)",
        tree="rgb_images/*.png, instance_annotations/*.json, each flat or in a folder of the same name; JSON files "
        "that "
        "do not name themselves, such as class_info.json, are no annotations",
        rule="polygon, of every tag; an optional group_id, which would join parts of an object, is not used: inferred",
        splits=both("train"),
        sam=(107, 10266),
        verified="the authors' scripts; Dataset Ninja's converter (https://github.com/dataset-ninja/woodscape)",
        pictures=_woodscape,
    ),
    Card(
        name="streets",
        title="STREETS",
        group="Scenes",
        page="https://databank.illinois.edu/datasets/IDB-3671567",
        licence="see the page",
        size="not known",
        version="vehicleannotations.zip",
        tree="annotations/vehicle-annotations.json, images/*.jpg (of vehicleannotations.zip)",
        rule="VIA region: a vehicle; whole set, as in the SAM paper, which names no split (the authors' split is "
        "data/train-val-split.json of their repository)",
        splits=both("train"),
        sam=(819, 9854),
        verified="the authors' benchmark (https://github.com/corey-snyder/STREETS, mrcnn_streets_benchmarking.py)",
        pictures=_streets,
    ),
    Card(
        name="ndispark",
        title="Night and Day Instance Segmented Park",
        group="Scenes",
        page="https://doi.org/10.5281/zenodo.6560823",
        licence="ODC-By 1.0",
        size="118 MB, 112 training images",
        version="1.0, ndis_park.zip",
        tree="train/train_coco_annotations.json, train/imgs/*.jpg (or validation/val_coco_annotations.json, "
        "validation/imgs/*.jpg)",
        rule="COCO annotation: a vehicle",
        splits=both("train"),
        sam=(111, 2577),
        verified="public loaders and a data card of the archive: 112 images, 2,577 vehicles, the SAM paper's number",
        pictures=_ndispark,
    ),
    Card(
        name="doors",
        title="Dataset fOr bOuldeRs Segmentation",
        group="Scenes",
        page="https://doi.org/10.5281/zenodo.7107409",
        licence="see the page",
        size="45,000 images (DS1)",
        version="Segmentation, DS1",
        tree="Segmentation/DS1/DS/{T,V,Te1,Te2}.txt, img/*.png, mask/*.png",
        rule="the mask: one boulder per image",
        splits={"ruac": ("V",), "sam1": ("T", "V", "Te1", "Te2")},
        sam=(10000, 10000),
        verified="Dataset Ninja's converter (https://github.com/dataset-ninja/doors)",
        pictures=_doors,
    ),
)
