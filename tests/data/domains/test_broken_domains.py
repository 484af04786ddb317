"""Broken trees: the error names the file and the entry, and says what was expected."""

import json

import numpy as np
import pytest
from native_formats import WIDTH, write_image, write_map
from native_trees import TREES
from PIL import Image

from ruac.base.errors import RuacError
from ruac.data.domains import open_domain


def edited(path, change):
    """The JSON file at `path` after `change` has had its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def epic_only(labels):
    """Rename the pictures of EgoHOS as if all came from one source."""
    for folder in (labels, labels.with_name("image")):
        for number, path in enumerate(sorted(folder.glob("[!.]*"))):
            path.rename(path.with_name(f"epick{number}{path.suffix}"))


COCO = "instance_version/instances_train_trashcan.json"
VISOR = "GroundTruth-SparseAnnotations/annotations/val/P01_107.json"
STREETS = "vehicleannotations/annotations/vehicle-annotations.json"
BONN = "gtFine/val/bonn/bonn_000000_000001_gtFine_instanceIds.png"
HDF5 = "ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0000.semantic_instance.hdf5"

CASES = {
    "coco: broken JSON": ("trashcan", COCO, truncated, r"instances_train_trashcan\.json: broken JSON"),
    "coco: dangling image": (
        "trashcan",
        COCO,
        lambda path: edited(path, lambda c: c["annotations"][2].update(image_id=99)),
        r"annotations\[2\]: image_id 99 is not in 'images'",
    ),
    "coco: key missing": (
        "ndispark",
        "train/train_coco_annotations.json",
        lambda path: edited(path, lambda c: c["images"][1].pop("width")),
        r"images\[1\]: key 'width' is missing",
    ),
    "coco: id twice": (
        "trashcan",
        COCO,
        lambda path: edited(path, lambda c: c["annotations"][1].update(id=11)),
        r"vid_1_frame1\.jpg: object id '11' occurs twice",
    ),
    "coco: RLE of another size": (
        "trashcan",
        COCO,
        lambda path: edited(path, lambda c: c["annotations"][2]["segmentation"].update(size=[9, 9])),
        r"object 13: RLE size \[9, 9\], expected \[24, 32\]",
    ),
    "coco: RLE runs": (
        "trashcan",
        COCO,
        lambda path: edited(path, lambda c: c["annotations"][3]["segmentation"]["counts"].append(5)),
        r"object 14: RLE counts sum to",
    ),
    "coco: polygon far away": (
        "coco",
        "annotations/instances_val2017.json",
        lambda path: edited(path, lambda c: c["annotations"][0].update(segmentation=[[1, 1, 900, 1, 900, 9]])),
        r"object 11: point \(900, 1\) lies far outside",
    ),
    "coco: image missing": (
        "trashcan",
        "instance_version/train/vid_2_frame1.jpg",
        lambda path: path.unlink(),
        r"vid_2_frame1\.jpg: image not found; instances_train_trashcan\.json names it",
    ),
    "video: dangling video": (
        "ovis",
        "annotations_train.json",
        lambda path: edited(path, lambda c: c["annotations"][1].update(video_id=6)),
        r"annotations\[1\]: video_id 6 is not in 'videos'",
    ),
    "video: frames missing": (
        "ovis",
        "annotations_train.json",
        lambda path: edited(path, lambda c: c["annotations"][0]["segmentations"].pop()),
        r"annotations\[0\]: expected one segmentation per frame",
    ),
    "via: no regions": (
        "streets",
        STREETS,
        lambda path: edited(path, lambda c: c["c.jpg1"].pop("regions")),
        r"'c\.jpg1': key 'regions' is missing",
    ),
    "via: x and y differ": (
        "ndd20",
        "ABOVE_LABELS.json",
        lambda path: edited(path, lambda c: c["1.jpg0"]["regions"][0]["shape_attributes"]["all_points_x"].pop()),
        r"ABOVE_LABELS\.json: '1\.jpg0': not as expected",
    ),
    "via: a list": ("streets", STREETS, lambda path: path.write_text("[]"), r"expected a VIA export"),
    "woodscape: other key": (
        "woodscape",
        "instance_annotations/instance_annotations/00000_FV.json",
        lambda path: path.write_text("{}"),
        r"00000_FV\.json: key '00000_FV\.json' is missing",
    ),
    "labelme: no points": (
        "ibd",
        "val/1.json",
        lambda path: edited(path, lambda c: c["shapes"][1].pop("points")),
        r"1\.json: shapes\[1\]: key 'points' is missing",
    ),
    "visor: no list": ("visor", VISOR, lambda path: path.write_text("{}"), r"list under the key 'video_annotations'"),
    "visor: no segments": (
        "visor",
        VISOR,
        lambda path: edited(path, lambda c: c["video_annotations"][1]["annotations"][0].pop("segments")),
        r"frame_0000000002\.jpg: key 'segments' is missing",
    ),
    "visor: frames not unpacked": (
        "visor",
        "GroundTruth-SparseAnnotations/rgb_frames/val/P01",
        lambda path: path.rename(path.with_name("P02")),
        r"P01_107: frames not found; unpack",
    ),
    "map: truncated": ("cityscapes", BONN, truncated, r"bonn_.*instanceIds\.png: cannot be read as an image"),
    "map: without an image": (
        "cityscapes",
        "leftImg8bit/val/bonn/bonn_000000_000001_leftImg8bit.png",
        lambda path: path.unlink(),
        r"mask without an image; expected .*bonn_000000_000001_leftImg8bit\.png",
    ),
    "map: colour": ("egohos", "train/label/THU_2.png", write_image, r"THU_2\.png: mask has mode RGB"),
    "map: grey where colour codes are": (
        "ade20k",
        "ADE20K_2021_17_01/images/ADE/validation/urban/street/ADE_val_00000001_seg.png",
        lambda path: write_map(path, np.ones((24, 32))),
        r"_seg\.png: has mode L, expected RGB",
    ),
    "map: one part missing": (
        "ishape",
        "wire",
        lambda path: path.rename(path.with_name("cable")),
        r"wire/val/instance_map not found; .*antenna",
    ),
    "hdf5: truncated": ("hypersim", HDF5, truncated, r"semantic_instance\.hdf5: cannot be read as HDF5"),
    "hdf5: no split": (
        "hypersim",
        "metadata_images_split_scene_v1.csv",
        lambda path: path.unlink(),
        r"metadata_images_split_scene_v1\.csv not found",
    ),
    "hdf5: other columns": (
        "hypersim",
        "metadata_images_split_scene_v1.csv",
        lambda path: path.write_text("a,b\n1,2\n"),
        r"split_scene_v1\.csv: key 'split_partition_name' is missing",
    ),
    "masks: truncated": ("bbbc038", "stage1_train/ab12/masks/m2.png", truncated, r"m2\.png: cannot be read"),
    "masks: none": (
        "bbbc038",
        "stage1_train/cd34/masks/m.png",
        lambda path: path.unlink(),
        r"cd34: 1 images and 0 masks, expected",
    ),
    "masks: list names another": (
        "doors",
        "Segmentation/DS1/DS/V.txt",
        lambda path: path.write_text("9.png\n"),
        r"9\.png: image not found; V\.txt names it",
    ),
    "egohos: other sources": (
        "egohos",
        "train/label",
        epic_only,
        r"no name begins with ego4d or thu, found epick0\.jpg",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_opening_names_what_is_wrong(case, tmp_path):
    name, file, damage, message = CASES[case]
    TREES[name](tmp_path)
    damage(tmp_path / file)
    with pytest.raises(RuacError, match=message):
        open_domain(name, tmp_path)


def test_a_mask_of_another_size_is_named_when_it_is_read(tmp_path):
    for name in ("cityscapes", "doors", "trashcan"):
        (tmp_path / name).mkdir()
        TREES[name](tmp_path / name)
        dataset = open_domain(name, tmp_path / name)
        Image.new("RGB", (WIDTH, 5)).save(dataset.records[0].path)
        with pytest.raises(RuacError, match=r"32x24.*32x5"):
            dataset[0]


def test_a_map_that_changed_meanwhile_is_no_silent_surprise(tmp_path):
    TREES["egohos"](tmp_path)
    dataset = open_domain("egohos", tmp_path)
    write_map(dataset.records[0].annotations[0], np.full((24, 32), 3))
    with pytest.raises(RuacError, match="has changed since"):
        dataset[0]


def test_a_place_that_exists_twice_has_to_be_named(tmp_path):
    for copy in "ab":
        (tmp_path / copy).mkdir()
        TREES["ovis"](tmp_path / copy)
    with pytest.raises(RuacError, match=r"annotations_train\.json exists in .*name one of them"):
        open_domain("ovis", tmp_path)


def test_hdf5_without_h5py_says_how_to_get_it(tmp_path, monkeypatch):
    TREES["hypersim"](tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(RuacError, match=r"pip install ruac\[domains\]"):
        open_domain("hypersim", tmp_path)
