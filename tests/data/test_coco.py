"""COCO folders: reading, every kind of bad input, and writing."""

import json

import numpy as np
import pytest
from builders import rle_of
from PIL import Image

from ruac.base.errors import RuacError
from ruac.data.coco import CocoFolder, _run_lengths
from ruac.data.sample import Record, Sample
from ruac.data.write import write_coco

HEIGHT, WIDTH = 24, 32


def masks_of(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((count, HEIGHT, WIDTH)) < 0.4


def content():
    first, second = masks_of(2)
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT, "origin": "here"},
            {"id": 9, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "segmentation": rle_of(first)},
            {"id": 2, "image_id": 7, "segmentation": [[4, 3, 12, 3, 12, 9, 4, 9]]},
            {"id": 3, "image_id": 7, "segmentation": rle_of(second), "iscrowd": 1},
        ],
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    image = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(image).save(tmp_path / "images" / name)
    return tmp_path


def save(folder, data):
    (folder / "annotations.json").write_text(json.dumps(data))
    return folder


def test_reads_rle_and_polygons_and_leaves_out_crowds_and_empty_images(folder):
    dataset = CocoFolder(save(folder, content()))
    assert len(dataset) == 1
    expected = Record("a.png", folder / "images" / "a.png", ("1", "2"), "here", (folder / "annotations.json",))
    assert dataset.records[0] == expected
    sample = dataset[0]
    assert sample.image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(sample.masks[0], masks_of(2)[0])
    polygon = np.zeros((HEIGHT, WIDTH), bool)
    polygon[3:9, 4:12] = True
    np.testing.assert_array_equal(sample.masks[1], polygon)


def test_split_list_chooses_images(folder):
    data = content()
    data["annotations"].append({"id": 4, "image_id": 9, "segmentation": [[4, 3, 12, 3, 12, 9, 4, 9]]})
    save(folder, data)
    (folder / "val.txt").write_text("b.png\n")
    assert [r.id for r in CocoFolder(folder, split="val").records] == ["b.png"]
    (folder / "val.txt").write_text("c.png\n")
    with pytest.raises(RuacError, match=r"val\.txt: 'c\.png' is not in annotations\.json"):
        CocoFolder(folder, split="val")
    (folder / "val.txt").write_text("\n")
    with pytest.raises(RuacError, match=r"val\.txt: the split list is empty"):
        CocoFolder(folder, split="val")
    with pytest.raises(RuacError, match=r"test\.txt: split list not found"):
        CocoFolder(folder, split="test")


def edit(*path, value):
    def apply(data):
        target = data
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return apply


def drop(*path):
    def apply(data):
        target = data
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("images", value={}), "expected a list under the key 'images'"),
        (drop("annotations"), "expected a list under the key 'annotations'"),
        (edit("images", 1, value="b.png"), r"images\[1\]: expected a mapping of keys, found str"),
        (drop("images", 1, "width"), r"images\[1\]: key 'width' is missing"),
        (edit("images", 1, "height", value="24"), r"images\[1\]: 'height' is '24', expected int"),
        (edit("images", 1, "id", value=7), r"images\[1\]: id 7 occurs twice"),
        (edit("images", 1, "file_name", value="a.png"), r"images\[1\]: file_name 'a.png' occurs twice"),
        (edit("annotations", 0, "image_id", value=99), r"annotations\[0\]: image_id 99 is not in 'images'"),
        (edit("annotations", 0, "image_id", value=[7]), r"annotations\[0\]: 'image_id' is \[7\], expected int or str"),
        (drop("annotations", 1, "segmentation"), r"annotations\[1\]: key 'segmentation' is missing"),
        (edit("annotations", 1, "segmentation", value=None), r"annotations\[1\]: 'segmentation' is None"),
        (edit("annotations", 1, "id", value=1), r"image 'a.png': object id '1' occurs twice"),
        (edit("annotations", value=[]), "no image with an object"),
    ],
)
def test_bad_structure_is_named_when_opened(folder, change, message):
    data = content()
    change(data)
    with pytest.raises(RuacError, match=message):
        CocoFolder(save(folder, data))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ([[1, 2, 3, 4]], "a polygon needs at least 3 points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon needs at least 3 points"),
        ([[1, 2, 3, "x", 5, 6]], "neither polygons nor RLE"),
        ([[1, 2, 3, float("nan"), 5, 6]], "lies far outside the 32x24 picture"),
        ([[1, 2, 1e12, 2, 5, 6]], "lies far outside the 32x24 picture"),
        ({"size": [HEIGHT, WIDTH]}, "neither polygons nor RLE"),
        ({"size": [WIDTH, HEIGHT], "counts": [0]}, r"RLE size \[32, 24\], expected \[24, 32\]"),
        ({"size": [HEIGHT, WIDTH], "counts": [10, 5]}, "RLE counts sum to 15, expected 768"),
        ({"size": [HEIGHT, WIDTH], "counts": [800, -32]}, "RLE counts sum to 768, expected 768, none negative"),
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "neither polygons nor RLE: .*broken RLE"),
        ({"size": [HEIGHT, WIDTH], "counts": "/0"}, "broken RLE"),  # below the alphabet, above it, without an end
        ({"size": [HEIGHT, WIDTH], "counts": "p0"}, "broken RLE"),
        ({"size": [HEIGHT, WIDTH], "counts": "0P"}, "broken RLE"),
        ({"size": [HEIGHT, WIDTH], "counts": "PPPPPPP0"}, "broken RLE"),  # a run of more bits than any picture's
        ({"size": [HEIGHT, WIDTH], "counts": "é"}, "neither polygons nor RLE"),
        ({"size": [HEIGHT, WIDTH], "counts": 5}, "neither polygons nor RLE"),
        ({"size": [HEIGHT, WIDTH], "counts": rle_of(masks_of(1)[0])["counts"][:9]}, "RLE counts sum to"),
        ({"size": [HEIGHT, WIDTH], "counts": rle_of(masks_of(1)[0])["counts"] + "5"}, "RLE counts sum to"),
    ],
)
def test_bad_masks_are_named_when_read(folder, code, message):
    data = content()
    data["annotations"][1]["segmentation"] = code
    dataset = CocoFolder(save(folder, data))
    with pytest.raises(RuacError, match=f"annotations.json: annotation 2: .*{message}"):
        dataset[0]


def test_run_lengths_agree_with_counting_runs():
    for seed in range(20):
        mask = np.random.default_rng(seed).random((13, 200)) < np.random.default_rng(seed).uniform(0.001, 0.999)
        flat = np.concatenate([[False], mask.ravel(order="F")])
        edges = np.flatnonzero(np.diff(flat)).tolist()
        expected = np.diff([0, *edges, mask.size])
        np.testing.assert_array_equal(_run_lengths(rle_of(mask)["counts"]), expected)


def test_broken_json_and_missing_files_are_named(folder):
    (folder / "annotations.json").write_text('{"images": [')
    with pytest.raises(RuacError, match=r"annotations\.json: broken JSON"):
        CocoFolder(folder)
    (folder / "annotations.json").unlink()
    with pytest.raises(RuacError, match=r"annotations\.json: not found"):
        CocoFolder(folder)
    save(folder, content())
    dataset = CocoFolder(folder)
    path = folder / "images" / "a.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RuacError, match=r"a\.png: cannot be read as an image"):
        dataset[0]
    path.write_text("no image")
    with pytest.raises(RuacError, match=r"a\.png: cannot be read as an image"):
        dataset[0]
    Image.new("RGB", (5, 6)).save(path)
    with pytest.raises(RuacError, match=r"a\.png: is 5x6 pixels, annotations\.json says 32x24"):
        dataset[0]
    path.unlink()
    with pytest.raises(RuacError, match=r"a\.png: image file not found"):
        dataset[0]


def test_images_folder_is_required(tmp_path):
    with pytest.raises(RuacError, match="images: folder not found"):
        CocoFolder(save(tmp_path, content()))


def test_sixteen_bit_pictures_keep_their_upper_bits(folder):
    values = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    Image.fromarray(values).save(folder / "images" / "a.png")
    image = CocoFolder(save(folder, content()))[0].image
    np.testing.assert_array_equal(image, np.repeat((values // 257)[..., None], 3, axis=2))


def samples(count=3):
    rng = np.random.default_rng(5)
    for index in range(count):
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        record = Record(f"clip/{index}.jpg", f"clip/{index}.jpg", ("x", f"clip/{index}/2"), origin="o" * index)
        yield Sample(record, image, masks_of(2, seed=index))  # the two masks overlap


def test_written_samples_come_back_exactly(tmp_path):
    seen = []
    write_coco(samples(), tmp_path / "out", splits={"val": ["clip/1.jpg"]}, progress=seen.append)
    dataset = CocoFolder(tmp_path / "out")
    assert seen == [1, 2, 3]
    assert [r.id for r in dataset.records] == ["clip/0.png", "clip/1.png", "clip/2.png"]
    for sample, back in zip(samples(), dataset, strict=True):
        assert back.record.object_ids == sample.record.object_ids
        assert back.record.origin == sample.record.origin
        np.testing.assert_array_equal(back.image, sample.image)
        np.testing.assert_array_equal(back.masks, sample.masks)
        assert back.masks.flags.c_contiguous  # as run lengths are not
    assert [r.id for r in CocoFolder(tmp_path / "out", split="val").records] == ["clip/1.png"]


def test_writing_leaves_all_or_nothing(tmp_path):
    def broken():
        yield from samples(2)
        raise RuntimeError("source failed")

    with pytest.raises(RuntimeError, match="source failed"):
        write_coco(broken(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuacError, match="no samples"):
        write_coco([], tmp_path / "out")
    twice = [*samples(1), *samples(1)]
    with pytest.raises(RuacError, match=r"a second image would be written to images/clip/0\.png"):
        write_coco(twice, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    write_coco(samples(1), tmp_path / "out")
    with pytest.raises(RuacError, match="out: exists already"):
        write_coco(samples(1), tmp_path / "out")
    escaping = Sample(Record("../x", "x", ("1",)), np.zeros((4, 4, 3), np.uint8), np.ones((1, 4, 4), bool))
    with pytest.raises(RuacError, match="expected a relative path"):
        write_coco([escaping], tmp_path / "other")


def test_a_small_object_in_the_corner_is_no_share_of_the_picture(folder):
    data = content()
    data["annotations"][1]["segmentation"] = [[0.2, 0.2, 1.4, 0.2, 1.4, 1.4, 0.2, 1.4]]
    assert CocoFolder(save(folder, data))[0].masks[1].sum() == 1
    data["annotations"][1]["segmentation"] = [[0.2, 0.2, 0.9, 0.2, 0.9, 1.0, 0.2, 1.0]]
    with pytest.raises(RuacError, match="a polygon within 0 to 1"):
        CocoFolder(save(folder, data))[0]


def test_a_place_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RuacError, match=r"file/out: cannot be written"):
        write_coco(samples(), tmp_path / "file" / "out")
