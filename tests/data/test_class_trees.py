"""Pascal VOC and Cityscapes trees as folders with classes."""

import numpy as np
import pytest
from PIL import Image

from ruac.base.errors import RuacError
from ruac.data.class_trees import CITYSCAPES, VOC
from ruac.data.classes import ClassFolder


def write(path, values, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    if mode == "P":
        picture = picture.convert("L")
        picture.putpalette([7 * k % 256 for k in range(768)])
    picture.save(path)


@pytest.fixture
def voc(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        write(tmp_path / "JPEGImages" / f"2007_{number}.jpg", rng.integers(0, 255, (10, 12, 3), np.uint8))
        labels = np.zeros((10, 12), np.uint8)
        labels[2:8, 2:8], labels[0] = 15, 255
        write(tmp_path / "SegmentationClass" / f"2007_{number}.png", labels, "P")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_0\n2007_1\n")
    (lists / "val.txt").write_text("2007_2\n")
    return tmp_path


def test_voc(voc):
    data = ClassFolder(voc)
    assert data.names == list(VOC)
    assert data.files == ["2007_0.jpg", "2007_1.jpg", "2007_2.jpg"]
    assert (data.places("train"), data.places("val")) == ([0, 1], [2])
    sample = data[0]
    assert data.names[sample.labels[3, 3]] == "person"
    assert (sample.labels[0] == 255).all()
    assert sample.classes.tolist() == [15]
    assert data.path(2) == voc / "JPEGImages" / "2007_2.jpg"
    with pytest.raises(RuacError, match="expected background=true"):
        ClassFolder(voc, background=False)


def test_more_labels_of_voc_go_first(voc):
    write(voc / "SegmentationClassAug" / "2007_1.png", np.full((10, 12), 3, np.uint8))
    data = ClassFolder(voc)
    assert set(np.unique(data[1].labels)) == {3}
    assert 15 in np.unique(data[0].labels)


def test_cityscapes(tmp_path):
    ids = np.arange(34, dtype=np.uint8).reshape(2, 17)
    for split, city in (("train", "ulm"), ("val", "bonn")):
        write(tmp_path / "leftImg8bit" / split / city / f"{city}_0_leftImg8bit.png", np.zeros((2, 17, 3), np.uint8))
        write(tmp_path / "gtFine" / split / city / f"{city}_0_gtFine_labelIds.png", ids)
    (tmp_path / "train.txt").write_text("ulm_0_leftImg8bit.png\n")
    data = ClassFolder(tmp_path, background=False)
    assert len(data.names) == 19
    assert data.files == ["ulm_0_leftImg8bit.png", "bonn_0_leftImg8bit.png"]
    assert data.places("train") == [0]
    labels = data[0].labels.ravel()
    for value in range(34):
        assert labels[value] == (data.names.index(CITYSCAPES[value]) if value in CITYSCAPES else 255)
    with pytest.raises(RuacError, match="expected background=false"):
        ClassFolder(tmp_path)


def test_another_tree_is_one_line(tmp_path):
    with pytest.raises(RuacError, match=r"expected annotations\.json, or labels/ .* Cityscapes"):
        ClassFolder(tmp_path)
