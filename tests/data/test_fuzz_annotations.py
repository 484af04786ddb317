"""Annotation files that are nearly right: COCO, run lengths, polygons, VIA, labelme, tracks, HDF5."""

import json
import shutil

import numpy as np
import pytest
from builders import rle_of
from fuzzing import NUMBERS, TEXTS, damaged, fuzzed, json_bytes, survives
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ruac.base.errors import RuacError
from ruac.data.classes import ClassFolder
from ruac.data.coco import CocoFolder, to_rle
from ruac.data.domains import coded
from ruac.data.domains.maps import read_hdf5
from ruac.data.open import validate_dataset

pytestmark = pytest.mark.filterwarnings("ignore")

HEIGHT, WIDTH = 12, 16
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[3:8, 4:11] = True
PLAIN = {"size": [HEIGHT, WIDTH], "counts": [51, 5, 7, 5, 7, 5, 7, 5, 7, 5, 7, 5, 7, 5, 64]}
SQUARE = [2.0, 2.0, 9.5, 2.0, 9.5, 7.0, 2.0, 7.0]
CODES = [rle_of(MASK), PLAIN, [SQUARE], [SQUARE, [1, 1, 5, 1, 5, 5]]]
COCO = {
    "images": [
        {"id": 1, "file_name": "0.png", "width": WIDTH, "height": HEIGHT},
        {"id": 2, "file_name": "1.png", "width": WIDTH, "height": HEIGHT, "origin": "a"},
    ],
    "annotations": [
        {"id": n + 1, "image_id": 1 + n % 2, "category_id": 1, "iscrowd": 0, "bbox": [4, 3, 7, 5], "segmentation": code}
        for n, code in enumerate(CODES)
    ],
    "categories": [{"id": 1, "name": "thing"}, {"id": 2, "name": "stuff"}],
}
VIA = {
    f"{n}.png123": {
        "filename": f"{n}.png",
        "regions": [
            {
                "shape_attributes": {"name": "polygon", "all_points_x": SQUARE[::2], "all_points_y": SQUARE[1::2]},
                "region_attributes": {},
            }
        ],
    }
    for n in range(2)
}
LABELME = {
    "imageHeight": HEIGHT,
    "imageWidth": WIDTH,
    "shapes": [
        {"label": "a", "group_id": None, "shape_type": "polygon", "points": [[2, 2], [9, 2], [9, 7]]},
        {"label": "a", "group_id": 3, "shape_type": "rectangle", "points": [[2, 2], [9, 7]]},
        {"label": "b", "group_id": 3, "shape_type": "circle", "points": [[6, 6], [9, 6]]},
        {"label": "b", "group_id": 4, "shape_type": "line", "points": [[6, 6], [9, 6]]},
    ],
}
TRACKS = {
    "videos": [{"id": 1, "width": WIDTH, "height": HEIGHT, "file_names": ["0.png", "1.png"]}],
    "annotations": [{"id": 5, "video_id": 1, "segmentations": [None, rle_of(MASK)]}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``images/`` with two pictures, to write annotations beside."""
    root = tmp_path_factory.mktemp("annotated")
    (root / "images").mkdir()
    for n in range(2):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "images" / f"{n}.png")
    return root


def test_what_is_made_nearly_right_is_right_at_first(folder):
    (folder / "annotations.json").write_text(json.dumps(COCO))
    validate_dataset(CocoFolder(folder))
    assert ClassFolder(folder).names == ["background", "thing"]
    for name, content, read in (("via", VIA, coded.via), ("tracks", TRACKS, lambda *x: coded.video(*x, every=True))):
        file = folder / f"{name}.json"
        file.write_text(json.dumps(content))
        assert len(_objects(read(file, folder / "images", "s"))) >= 1
    (folder / "labelme.json").write_text(json.dumps(LABELME))
    assert len(coded.labelme(folder / "labelme.json")) == 4


@fuzzed
@given(content=json_bytes(COCO))
def test_fuzz_coco(folder, content):
    (folder / "annotations.json").write_bytes(content)
    survives(lambda: validate_dataset(CocoFolder(folder)), names=folder)
    survives(lambda: [ClassFolder(folder)[0]], names=folder)


@fuzzed
@given(content=json_bytes(COCO))
def test_fuzz_coco_of_a_download(folder, content):
    file = folder / "download.json"
    file.write_bytes(content)
    survives(lambda: _objects(coded.coco(file, folder / "images", "s")), names=folder)


@fuzzed
@given(content=json_bytes(VIA))
def test_fuzz_via(folder, content):
    file = folder / "via.json"
    file.write_bytes(content)
    survives(lambda: _objects(coded.via(file, folder / "images", "s")), names=folder)


@fuzzed
@given(content=json_bytes(TRACKS), every=st.booleans())
def test_fuzz_tracks(folder, content, every):
    file = folder / "tracks.json"
    file.write_bytes(content)
    survives(lambda: _objects(coded.video(file, folder / "images", "s", every=every)), names=folder)


@fuzzed
@given(content=json_bytes(LABELME))
def test_fuzz_labelme(folder, content):
    file = folder / "labelme.json"
    file.write_bytes(content)
    found = coded.Coded(file, coded.labelme, hint=coded.labelme_size)

    def read():
        ids, _ = found.object_ids(folder / "images" / "0.png")
        return found.masks(tuple(ids), (HEIGHT, WIDTH)) if ids else None

    survives(read, names=file)


COUNTS = st.one_of(
    st.text(alphabet=st.characters(min_codepoint=40, max_codepoint=120), max_size=12),
    st.lists(NUMBERS, max_size=6),
    damaged(rle_of(MASK)["counts"].encode()).map(lambda b: b.decode("latin-1")),
    TEXTS,
)
SIDES = st.one_of(st.integers(0, 40), NUMBERS)


@fuzzed
@given(
    code=st.one_of(
        st.fixed_dictionaries({"size": st.one_of(st.just([HEIGHT, WIDTH]), st.lists(SIDES)), "counts": COUNTS}),
        st.lists(st.one_of(st.lists(NUMBERS, max_size=10), st.lists(st.floats(-16, 32), min_size=6, max_size=12))),
    )
)
def test_fuzz_run_lengths_and_polygons(code):
    from pycocotools import mask as rle

    found = survives(to_rle, code, HEIGHT, WIDTH, "here", names="here")
    if found is not None:
        mask = rle.decode(found)
        assert mask.shape == (HEIGHT, WIDTH)
        assert set(np.unique(mask)) <= {0, 1}  # what is not written is memory of others


def test_fuzz_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="hdf5 needs ruac[domains]")
    whole = tmp_path / "whole.hdf5"
    with h5py.File(whole, "w") as file:
        file["dataset"] = np.arange(12, dtype=np.int32).reshape(3, 4)
    content, broken = whole.read_bytes(), tmp_path / "broken.hdf5"

    @fuzzed
    @given(content=damaged(content))
    def check(content):
        broken.write_bytes(content)
        survives(read_hdf5, broken, names=broken)

    check()


@pytest.mark.parametrize("how", ["huge", "group", "external link", "external pixels", "virtual"])
def test_hdf5_that_claims_more_than_it_holds(tmp_path, how):
    h5py = pytest.importorskip("h5py", reason="hdf5 needs ruac[domains]")
    path, other = tmp_path / "a.hdf5", tmp_path / "other.hdf5"
    with h5py.File(other, "w") as file:
        file["dataset"] = np.zeros((3, 4), np.int32)
    with h5py.File(path, "w") as file:
        if how == "huge":  # a few kilobytes that say 4 terabytes
            file.create_dataset("dataset", (1 << 20, 1 << 20), np.int32, chunks=(256, 256))
        elif how == "group":
            file.create_group("dataset")
        elif how == "external link":
            file["dataset"] = h5py.ExternalLink(str(other), "dataset")
        elif how == "external pixels":
            file.create_dataset("dataset", (3, 4), np.int8, external=[("/etc/hostname", 0, 12)])
        else:
            layout = h5py.VirtualLayout((3, 4), np.int32)
            layout[:] = h5py.VirtualSource(str(other), "dataset", (3, 4))
            file.create_virtual_dataset("dataset", layout)
    with pytest.raises(RuacError, match=r"a\.hdf5"):
        read_hdf5(path)


def test_a_line_across_a_picture_of_a_claimed_size_costs_nothing(folder, tmp_path):
    side = 1 << 30
    content = json.loads(json.dumps(COCO))
    content["images"][0] |= {"width": side, "height": side}
    content["annotations"][0]["segmentation"] = [[0, 0, side, side, 0, 0]]  # would be drawn point by point
    root = tmp_path / "claims"
    shutil.copytree(folder / "images", root / "images")
    (root / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(RuacError, match=r"images\[0\]: has 1152921504606846976 pixels, expected at most"):
        CocoFolder(root)


def _objects(pictures):
    """Every mask of every picture, of those that are small enough."""
    found = []
    for picture in pictures:
        ids, _ = picture.annotation.object_ids(picture.path)
        if ids:
            found.append(picture.annotation.masks(tuple(ids), (HEIGHT, WIDTH)))
    return found
