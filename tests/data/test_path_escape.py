"""File names that are written down stay below their folder: COCO, downloads, video trees, review queues."""

import json

import pytest
from PIL import Image

from ruac.base.errors import RuacError
from ruac.data.coco import CocoFolder
from ruac.data.davis import DavisTree
from ruac.data.domains import coded
from ruac.data.sample import check_inside
from ruac.inference.review.queue import read_queue

OUTSIDE = [
    "../secret.png",
    "/etc/hostname",
    "a/../../secret.png",
    "..",
    "C:\\secret.png",
    "..\\secret.png",
    "\\\\host\\a",
]
SQUARE = [2, 2, 9, 2, 9, 7]


@pytest.fixture
def folder(tmp_path):
    """A data set with a picture, and one beside it that is nobody's business."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    for path in (root / "images" / "0.png", root / "secret.png", tmp_path / "secret.png"):
        Image.new("RGB", (16, 12)).save(path)
    return root


def coco(name):
    image = {"id": 1, "file_name": name, "width": 16, "height": 12}
    return {"images": [image], "annotations": [{"id": 1, "image_id": 1, "segmentation": [SQUARE]}]}


@pytest.mark.parametrize("name", OUTSIDE)
def test_annotations_name_no_file_outside(folder, name):
    file = folder / "annotations.json"
    shape = {"name": "polygon", "all_points_x": SQUARE[::2], "all_points_y": SQUARE[1::2]}
    track = {"id": 1, "video_id": 1, "segmentations": [[SQUARE]]}
    video = {"id": 1, "width": 16, "height": 12, "file_names": [name]}
    readers = [
        (coco(name), lambda: CocoFolder(folder)),
        (coco(name), lambda: list(coded.coco(file, folder / "images", "s"))),
        (
            {"k": {"filename": name, "regions": [{"shape_attributes": shape}]}},
            lambda: list(coded.via(file, folder, "s")),
        ),
        ({"videos": [video], "annotations": [track]}, lambda: list(coded.video(file, folder, "s", every=True))),
    ]
    for content, read in readers:
        file.write_text(json.dumps(content))
        with pytest.raises(RuacError, match=r"annotations\.json: .*expected a path inside its folder"):
            read()


def test_a_list_of_clips_names_no_folder_outside(tmp_path):
    root = tmp_path / "tree"
    for clips in (root / "JPEGImages" / "a", root / "Annotations" / "a", tmp_path / "b", root / "JPEGImages" / "b"):
        clips.mkdir(parents=True)
    (root / "list.txt").write_text("../../b\n")
    with pytest.raises(RuacError, match=r"list\.txt: line 1: file name '\.\./\.\./b', expected a path inside"):
        DavisTree(root, split=str(root / "list.txt"))


@pytest.mark.parametrize("key", ["answer", "file"])
def test_a_queue_names_no_file_outside(tmp_path, key):
    entry = {"file": "a.png", "sha256": "00", "answer": "a.png.json"} | {key: "../secret.json"}
    content = {"format": 1, "pictures": [entry], "failed": [], "without_prompt": []}
    (tmp_path / "predictions.json").write_text(json.dumps(content))
    with pytest.raises(RuacError, match=r"predictions\.json: file name '\.\./secret\.json', expected a path inside"):
        read_queue(tmp_path)


def test_a_link_inside_is_the_users_own_and_is_followed(folder, tmp_path):
    (folder / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "annotations.json").write_text(json.dumps(coco("link.png")))
    assert CocoFolder(folder)[0].image.shape == (12, 16, 3)


@pytest.mark.parametrize("name", ["a..b/c.png", "..a/b", "sub/0.png", "a b.png", "é.png", "...", "a:b.png"])
def test_ordinary_names_pass(name):
    check_inside(name, "here")


@pytest.mark.parametrize("name", ["", " ", None, 3, "a\0b"])
def test_what_is_no_name(name):
    with pytest.raises(RuacError, match=r"here: file name .* expected a relative path"):
        check_inside(name, "here")
