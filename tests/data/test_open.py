"""Telling formats apart, and checking a data set before work starts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ruac.base.errors import RuacError
from ruac.data.coco import CocoFolder
from ruac.data.davis import DavisTree
from ruac.data.folder import ImageMaskFolder
from ruac.data.open import open_dataset, validate_dataset
from ruac.data.sample import MaskDataset, Record, Sample
from ruac.data.write import write_coco

IMAGE = np.full((10, 12, 3), 50, np.uint8)
MASKS = np.arange(120).reshape(1, 10, 12) > 60


def write_pair(image, mask):
    for path, array in ((image, IMAGE), (mask, MASKS[0].astype(np.uint8))):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


@pytest.fixture
def roots(tmp_path):
    write_coco([Sample(Record("a", Path("a"), ("1",)), IMAGE, MASKS)], tmp_path / "c")
    write_pair(tmp_path / "f" / "images" / "a.png", tmp_path / "f" / "masks" / "a.png")
    for frame in ("0", "1"):
        clip = tmp_path / "d"
        write_pair(clip / "JPEGImages" / "x" / f"{frame}.jpg", clip / "Annotations" / "x" / f"{frame}.png")
    return tmp_path


def test_formats_are_told_apart(roots):
    for folder, reader in (("c", CocoFolder), ("f", ImageMaskFolder), ("d", DavisTree)):
        dataset = open_dataset(roots / folder)
        assert type(dataset) is reader
        assert isinstance(dataset, MaskDataset)
        assert dataset.name == folder
        assert len(dataset) == len(dataset.records) == 1
        np.testing.assert_array_equal(dataset[0].masks, MASKS)
        validate_dataset(dataset)
    assert open_dataset(roots / "f", format="folder", name="mine").name == "mine"
    assert len(open_dataset(roots / "d", frames="all")) == 2


def test_wrong_paths_and_formats_say_what_was_expected(roots):
    known = r"one of: coco \(annotations\.json \+ images\); folder \(images \+ masks\); davis \(JPEGImages \+ Annot"
    with pytest.raises(RuacError, match=f"nowhere: folder not found; expected a data set, {known}"):
        open_dataset(roots / "nowhere")
    with pytest.raises(RuacError, match=f"format not recognised, expected {known}"):
        open_dataset(roots)
    with pytest.raises(RuacError, match="format: 'voc', expected one of: auto, coco, folder, davis"):
        open_dataset(roots / "c", format="voc")
    with pytest.raises(RuacError, match=r"annotations\.json: not found; expected a COCO folder"):
        open_dataset(roots / "f", format="coco")


class Fixed:
    """Two samples, the second one to be spoiled."""

    name = "fixed"

    def __init__(self, **second):
        self.records = [
            Record("a", Path("a"), ("1",)),
            Record(second.get("id", "b"), Path("b"), second.get("ids", ("1",))),
        ]
        self.second = second

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index == 0:
            return Sample(self.records[0], IMAGE, MASKS)
        return Sample(self.records[1], self.second.get("image", IMAGE), self.second.get("masks", MASKS))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"id": "a"}, "fixed: image 'a': the id occurs twice"),
        ({"ids": ("1", "1")}, "image 'b': expected unique object ids"),
        ({"image": IMAGE[..., 0]}, r"image 'b': image is uint8 \[10, 12\], expected uint8 \[H, W, 3\]"),
        ({"masks": MASKS[:, :5]}, r"image 'b': masks are bool \[1, 5, 12\], expected bool \[1, 10, 12\]"),
        ({"masks": MASKS.astype(np.uint8)}, "image 'b': masks are uint8"),
        ({"ids": ("1", "2")}, r"expected bool \[2, 10, 12\]"),
        ({"masks": MASKS & False}, "image 'b': object '1' has an empty mask"),
    ],
)
def test_validation_stops_at_the_first_broken_sample(second, message):
    done = []
    with pytest.raises(RuacError, match=message):
        validate_dataset(Fixed(**second), lambda *step: done.append(step))
    assert done == [(1, 2)]


def test_validation_reports_progress():
    done = []
    validate_dataset(Fixed(), lambda *step: done.append(step))
    assert done == [(1, 2), (2, 2)]
