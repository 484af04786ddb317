"""Files of an answer hold the answer."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from ruac.base.errors import RuacError
from ruac.inference.predicted import PredictedMasks
from ruac.inference.save import LEVELS, PictureAnswer, save_answer


@pytest.fixture
def answer():
    random = np.random.default_rng(0)
    masks = random.random((3, 20, 31)) < 0.4
    masks[2] = False
    uncertainty = random.random((3, 20, 31)).astype(np.float32)
    uncertainty[0, 0, :2] = 0, 1
    scores = np.array([0.9, 0.5, 0.1], np.float32)
    probability = np.where(masks, 1 - uncertainty / 2, uncertainty / 2)
    return PredictedMasks(masks, scores, np.zeros((3, 5, 8), np.float32), probability, uncertainty)


def test_the_files_hold_the_answer(answer, tmp_path):
    mask, uncertainty, description = save_answer(tmp_path / "new", "photo", answer)
    assert ((np.asarray(Image.open(mask)) > 0) == answer.masks[0]).all()
    levels = np.asarray(Image.open(uncertainty))
    assert levels[0, 0] == 0
    assert levels[0, 1] == LEVELS
    np.testing.assert_allclose(levels / LEVELS, answer.uncertainty[0], atol=0.51 / LEVELS)
    with Image.open(uncertainty) as picture:
        assert picture.mode.startswith("I;16")
        assert picture.text["scale"] == f"value / {LEVELS}"
    content = json.loads(description.read_text())
    assert content["size"] == [20, 31]
    assert content["files"] == {"mask": mask.name, "uncertainty": uncertainty.name}
    (best,) = content["objects"]
    masks = [best, *best["others"]]
    assert [entry["score"] for entry in masks] == answer.scores.tolist()
    for entry, expected in zip(masks, answer.masks, strict=True):
        assert (rle.decode(entry["segmentation"]) == expected).all()
        assert entry["area"] == expected.sum()
        assert entry["reliability"] == min(entry["score"], entry["expected_iou"])
    assert masks[2]["mean_uncertainty"] is None


def test_several_objects_lie_over_each_other(answer, tmp_path):
    whole = PictureAnswer((20, 31))
    for index in (1, 0):  # the first added is the less reliable
        whole.add(answer.part(slice(index, index + 1)), kind=f"kind {index}", prompt={"box": [0, 0, 3, 4]})
    files = {path.name.split(".")[-2]: path for path in whole.save(tmp_path, "photo.jpg", picture=None)[:-1]}
    one, two = answer.masks[1], answer.masks[0]
    assert ((np.asarray(Image.open(files["mask"])) > 0) == (one | two)).all()
    assert (np.asarray(Image.open(files["ids"])) == np.where(two, 2, np.where(one, 1, 0))).all()
    larger = np.maximum(answer.uncertainty[0], answer.uncertainty[1])
    np.testing.assert_allclose(np.asarray(Image.open(files["uncertainty"])) / LEVELS, larger, atol=0.51 / LEVELS)
    objects = json.loads((tmp_path / "photo.jpg.json").read_text())["objects"]
    assert [entry["class"] for entry in objects] == ["kind 1", "kind 0"]
    assert objects[0]["reliability"] < objects[1]["reliability"]


def test_a_picture_without_an_object_has_no_uncertainty(tmp_path):
    mask, description = PictureAnswer((4, 5)).save(tmp_path, "photo", picture=None)
    assert not np.asarray(Image.open(mask)).any()
    assert json.loads(description.read_text())["files"] == {"mask": mask.name}


def test_a_folder_that_cannot_be_is_one_error(answer, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RuacError, match="cannot be written"):
        save_answer(tmp_path / "file" / "in", "photo", answer)


def test_an_answer_to_another_picture_is_not_overwritten(answer, tmp_path):
    first, other = tmp_path / "one" / "photo.png", tmp_path / "two" / "photo.png"
    for number, path in enumerate((first, other)):
        path.parent.mkdir()
        Image.new("RGB", (31, 20), (number, 0, 0)).save(path)
    *_, description = save_answer(tmp_path / "out", "photo", answer, picture=first)
    assert json.loads(description.read_text())["picture"]["file"] == "photo.png"
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(RuacError, match=r"photo\.json: holds an answer to another picture \(photo\.png\)"):
        save_answer(tmp_path / "out", "photo", answer, picture=other)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    answer.scores[0] = 0.8
    save_answer(tmp_path / "out", "photo", answer, picture=first)  # of the same one it may
    assert json.loads(description.read_text())["objects"][0]["score"] == pytest.approx(0.8)
    description.write_text("{}")
    with pytest.raises(RuacError, match="another picture"):
        save_answer(tmp_path / "out", "photo", answer, picture=first)
