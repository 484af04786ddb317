"""Files of an answer hold the answer."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from ruac.base.errors import RuacError
from ruac.inference.save import LEVELS, save_answer


@pytest.fixture
def answer():
    random = np.random.default_rng(0)
    masks = random.random((3, 20, 31)) < 0.4
    masks[2] = False
    uncertainty = random.random((3, 20, 31)).astype(np.float32)
    uncertainty[0, 0, :2] = 0, 1
    scores = np.array([0.9, 0.5, 0.1], np.float32)
    return SimpleNamespace(masks=masks, uncertainty=uncertainty, scores=scores, inner=None, outer=None)


def test_the_files_hold_the_answer(answer, tmp_path):
    mask, uncertainty, description = save_answer(tmp_path / "new", "photo", answer)
    assert ((np.asarray(Image.open(mask)) > 0) == answer.masks[0]).all()
    levels = np.asarray(Image.open(uncertainty))
    assert levels[0, 0] == 0
    assert levels[0, 1] == LEVELS
    np.testing.assert_allclose(levels / LEVELS, answer.uncertainty[0], atol=0.51 / LEVELS)
    content = json.loads(description.read_text())
    assert content["size"] == [20, 31]
    assert [entry["score"] for entry in content["masks"]] == answer.scores.tolist()
    for entry, expected in zip(content["masks"], answer.masks, strict=True):
        assert (rle.decode(entry["segmentation"]) == expected).all()
        assert entry["area"] == expected.sum()
    assert content["masks"][2]["mean_uncertainty"] is None


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
    assert json.loads(description.read_text())["masks"][0]["score"] == pytest.approx(0.8)
    description.write_text("{}")
    with pytest.raises(RuacError, match="another picture"):
        save_answer(tmp_path / "out", "photo", answer, picture=first)
