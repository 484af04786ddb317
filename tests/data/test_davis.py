"""DAVIS and MOSE trees: clips, frames, splits, bad input."""

import numpy as np
import pytest
from PIL import Image

from ruac.base.errors import RuacError
from ruac.data.davis import DavisTree

HEIGHT, WIDTH = 18, 26


def add_frame(root, clip, frame, values, sub=""):
    """One row block per value."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place, value in enumerate(values):
        ids[2 + 3 * place : 4 + 3 * place, 4:20] = value
    for folder in ("JPEGImages", "Annotations"):
        (root / folder / sub / clip).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), "teal").save(root / "JPEGImages" / sub / clip / f"{frame}.jpg")
    mask = Image.fromarray(ids)
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + 759 * [7])
    mask.save(root / "Annotations" / sub / clip / f"{frame}.png")
    return ids


@pytest.fixture
def root(tmp_path):
    add_frame(tmp_path, "bear", "00000", [])
    add_frame(tmp_path, "bear", "00001", [2, 1])
    add_frame(tmp_path, "bear", "00002", [2])
    add_frame(tmp_path, "cat", "00005", [4])
    return tmp_path


def test_first_takes_the_first_frame_with_an_object(root):
    dataset = DavisTree(root)
    assert [(r.id, r.object_ids) for r in dataset.records] == [
        ("bear/00001", ("bear/00001/1", "bear/00001/2")),
        ("cat/00005", ("cat/00005/4",)),
    ]
    ids = add_frame(root, "bear", "00001", [2, 1])
    np.testing.assert_array_equal(dataset[0].masks, np.stack([ids == 1, ids == 2]))
    assert dataset[0].image.shape == (HEIGHT, WIDTH, 3)


def test_all_leaves_out_empty_frames(root):
    dataset = DavisTree(root, frames="all", name="davis")
    assert dataset.name == "davis"
    assert [r.id for r in dataset.records] == ["bear/00001", "bear/00002", "cat/00005"]
    assert [s.masks.shape[0] for s in dataset] == [2, 1, 1]


def test_480p_folders_and_images_without_annotation(tmp_path):
    add_frame(tmp_path, "dog", "00000", [1], sub="480p")
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "JPEGImages" / "480p" / "dog" / "00001.jpg")
    dataset = DavisTree(tmp_path, frames="all")
    assert [r.path for r in dataset.records] == [tmp_path / "JPEGImages" / "480p" / "dog" / "00000.jpg"]


def test_split_by_name_or_path(root):
    for year, clips in (("2016", "bear"), ("2017", "cat\nbear\n")):
        (root / "ImageSets" / year).mkdir(parents=True)
        (root / "ImageSets" / year / "val.txt").write_text(clips)
    assert [r.id for r in DavisTree(root, split="2016/val").records] == ["bear/00001"]
    path = root / "ImageSets" / "2017" / "val.txt"
    assert [r.id for r in DavisTree(root, split=str(path)).records] == ["cat/00005", "bear/00001"]
    with pytest.raises(RuacError, match=r"split 'val' is ambiguous, expected one of: 2016/val, 2017/val"):
        DavisTree(root, split="val")
    with pytest.raises(RuacError, match=r"ImageSets: split 'test' not found; expected \*\*/test\.txt"):
        DavisTree(root, split="test")
    path.write_text("cat\nwolf\n")
    with pytest.raises(RuacError, match=r"val\.txt: line 2: expected a clip with images and masks, found 'wolf'"):
        DavisTree(root, split="2017/val")


def test_bad_trees_are_named(root, tmp_path_factory):
    with pytest.raises(RuacError, match="frames: 'some', expected one of: first, all"):
        DavisTree(root, frames="some")
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(RuacError, match="JPEGImages: folder not found"):
        DavisTree(empty)
    (empty / "JPEGImages").mkdir()
    with pytest.raises(RuacError, match="JPEGImages: no clips"):
        DavisTree(empty)
    (root / "JPEGImages" / "fox").mkdir()
    with pytest.raises(RuacError, match=r"fox: clip without masks; expected .*Annotations/fox"):
        DavisTree(root)
    (root / "Annotations" / "fox").mkdir()
    with pytest.raises(RuacError, match="Annotations/fox: no masks"):
        DavisTree(root)


def test_bad_frames_are_named(root):
    image, mask = root / "JPEGImages" / "cat" / "00005.jpg", root / "Annotations" / "cat" / "00005.png"
    image.rename(image.with_name("00006.jpg"))
    with pytest.raises(RuacError, match=r"cat/00005\.png: mask without an image; expected .*00005\.jpg"):
        DavisTree(root)
    image.with_name("00006.jpg").rename(image)
    Image.new("RGB", (WIDTH, HEIGHT)).save(mask)
    with pytest.raises(RuacError, match=r"cat/00005\.png: mask has mode RGB"):
        DavisTree(root, frames="all")
    Image.new("L", (WIDTH, 5), 1).save(mask)
    with pytest.raises(RuacError, match=r"cat/00005\.png: is 26x5 pixels, expected 26x18 like 00005\.jpg"):
        DavisTree(root)[1]
    for path in (root / "Annotations").glob("*/*.png"):
        Image.new("L", (WIDTH, HEIGHT)).save(path)
    with pytest.raises(RuacError, match="no frame with an object"):
        DavisTree(root, frames="all")
