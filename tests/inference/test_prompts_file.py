"""Prompts from a file: what is read, and what is said of every mistake."""

import json
import re
from pathlib import Path

import pytest

from ruac.base.errors import RuacError
from ruac.inference.prompts_file import ObjectPrompt, read_prompts

PICTURES = ["a.png", "sub/b.png"]


@pytest.fixture
def read(tmp_path):
    def write_and_read(content):
        (tmp_path / "prompts.json").write_text(json.dumps(content))
        return read_prompts(tmp_path / "prompts.json", PICTURES)

    return write_and_read


def test_own_form(read):
    found = read(
        {
            "a.png": [{"box": [1, 2, 3.5, 4]}, {"points": [[5, 6], [7, 8]], "labels": [1, 0], "class": "cat"}],
            "sub/b.png": [{"points": [[1, 1]]}],
        }
    )
    cat = ObjectPrompt(points=((5.0, 6.0), (7.0, 8.0)), labels=(1, 0), kind="cat")
    assert found["a.png"] == [ObjectPrompt(box=(1.0, 2.0, 3.5, 4.0)), cat]
    assert found["sub/b.png"] == [ObjectPrompt(points=((1.0, 1.0),), labels=(1,))]
    assert cat.entry() == {"points": [[5.0, 6.0], [7.0, 8.0]], "labels": [1, 0]}


def test_the_example_of_the_page(read):
    page = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)
    content = json.loads(example.replace("a.jpg", "a.png").replace("b.jpg", "b.png"))
    assert [len(objects) for objects in read(content).values()] == [2, 1]


def coco(**changes):
    annotations = [
        {"id": 1, "image_id": "x", "category_id": 3, "bbox": [10, 20, 5, 6]},
        {"id": 2, "image_id": "x", "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 1},
    ]
    images = [{"id": "x", "file_name": "sub/b.png"}, {"id": 4, "file_name": "a.png"}]
    return {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "dog"}]} | changes


def test_coco_boxes(read):
    assert read(coco()) == {"sub/b.png": [ObjectPrompt(box=(10.0, 20.0, 15.0, 26.0), kind="dog")], "a.png": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a mapping from pictures"),
        ({"c.png": []}, r"'c.png' is no picture of the folder; did you mean 'a.png'"),
        ({"a.png": {}}, "'a.png': expected a list"),
        ({"a.png": [{}]}, r"'a.png'\[0\]: expected a mapping with a box"),
        ({"a.png": [{"box": [1, 2, 3]}]}, r"'a.png'\[0\]: box: \[1, 2, 3\], expected 4 numbers"),
        ({"a.png": [{"box": [3, 2, 3, 5]}]}, "expected x0 y0 x1 y1"),
        ({"a.png": [{"points": []}]}, "expected x, y pairs"),
        ({"a.png": [{"points": [[1, float("nan")]]}]}, "expected x, y pairs"),
        ({"a.png": [{"points": [[1, 2]], "labels": [2]}]}, "labels"),
        ({"a.png": [{"box": [1, 2, 3, 4], "labels": [1]}]}, "labels without points"),
        ({"a.png": [{"point": [[1, 2]], "box": [1, 2, 3, 4]}]}, "did you mean 'points'"),
        (coco(images=[{"id": 1, "file_name": "b.png"}]), r"images\[0\]: 'b.png' is no picture"),
        (coco(images=[{"id": [1], "file_name": "a.png"}]), r"images\[0\]: id \[1\]"),
        (coco(annotations=[{"image_id": 9, "bbox": [1, 2, 3, 4]}]), r"annotations\[0\]: image_id 9"),
        (coco(annotations=[{"image_id": 4, "bbox": None}]), r"annotations\[0\]: bbox"),
        (coco(annotations=[{"image_id": 4, "bbox": [1, 2, 0, 4]}]), r"annotations\[0\]: box"),
        (coco(annotations=[3]), r"annotations\[0\]: expected a mapping"),
    ],
)
def test_mistakes_name_the_entry(read, content, message):
    with pytest.raises(RuacError, match=message):
        read(content)


def test_places_lie_in_the_picture():
    ObjectPrompt(box=(0, 0, 8, 4), points=((8.0, 4.0),), labels=(1,)).check_inside((4, 8))
    with pytest.raises(RuacError, match=r"\(5, 4.5\): outside the 8x4 picture"):
        ObjectPrompt(points=((5, 4.5),), labels=(1,)).check_inside((4, 8))
