"""Folders of images and masks: every accepted mask kind, every kind of bad input."""

import numpy as np
import pytest
from PIL import Image

from ruac.base.errors import RuacError
from ruac.data.folder import ImageMaskFolder

HEIGHT, WIDTH = 20, 30


def ids(*values):
    """A map with one block of rows per value, background above."""
    result = np.zeros((HEIGHT, WIDTH), np.int64)
    for place, value in enumerate(values):
        result[3 + 4 * place : 6 + 4 * place, 5:20] = value
    return result


def save_image(root, name):
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "masks").mkdir(exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(root / "images" / name)


def save_mask(root, name, array, dtype=np.uint8):
    path = root / "masks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(dtype)).save(path)


@pytest.fixture
def root(tmp_path):
    save_image(tmp_path, "a.jpg")
    save_mask(tmp_path, "a.png", ids(1, 2))
    return tmp_path


def test_eight_and_sixteen_bit_palette_binary_and_one_bit(root):
    save_image(root, "b.png")
    save_mask(root, "b.png", ids(300, 4), np.uint16)
    save_image(root, "c.tif")
    palette = Image.fromarray(ids(7, 3).astype(np.uint8))
    palette.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))  # colours do not matter, indices do
    assert palette.mode == "P"
    palette.save(root / "masks" / "c.png")
    save_image(root, "d.jpg")
    save_mask(root, "d.png", ids(255))
    save_image(root, "e.jpg")
    save_mask(root, "e.png", ids(1), bool)

    dataset = ImageMaskFolder(root)
    assert [(r.id, r.object_ids) for r in dataset.records] == [
        ("a", ("1", "2")),
        ("b", ("4", "300")),
        ("c", ("3", "7")),
        ("d", ("255",)),
        ("e", ("1",)),
    ]
    for record, sample in zip(dataset.records, dataset, strict=True):
        assert sample.image.shape == (HEIGHT, WIDTH, 3)
        values = [int(v) for v in record.object_ids]
        order = {"a": (1, 2), "b": (300, 4), "c": (7, 3), "d": (255,), "e": (1,)}[record.id]
        np.testing.assert_array_equal(sample.masks, np.stack([ids(*order) == v for v in values]))


def test_a_folder_of_binary_masks_may_overlap(root):
    save_image(root, "b.jpg")
    left, right = np.zeros((2, HEIGHT, WIDTH), bool)
    left[:, :18], right[:, 12:] = True, True
    save_mask(root, "b/left.png", left * 255)
    save_mask(root, "b/right.png", right)
    dataset = ImageMaskFolder(root)
    assert dataset.records[1].object_ids == ("left", "right")
    np.testing.assert_array_equal(dataset[1].masks, np.stack([left, right]))


def test_images_without_objects_are_left_out_and_a_split_chooses(root):
    for name in ("b", "c"):
        save_image(root, f"{name}.jpg")
    save_mask(root, "b.png", ids())
    save_mask(root, "c.png", ids(5))
    assert [r.id for r in ImageMaskFolder(root).records] == ["a", "c"]
    (root / "val.txt").write_text("c\na.jpg\n")
    assert [r.id for r in ImageMaskFolder(root, split="val").records] == ["a", "c"]
    (root / "val.txt").write_text("x\n")
    with pytest.raises(RuacError, match=r"val\.txt: 'x' is not in .*images"):
        ImageMaskFolder(root, split="val")
    with pytest.raises(RuacError, match=r"test\.txt: split list not found"):
        ImageMaskFolder(root, split="test")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: save_image(root, "b.jpg"), r"b\.jpg: image without a mask; expected .*masks/b\.png"),
        (lambda root: save_mask(root, "b.png", ids(1)), r"masks/b\.png: mask without an image"),
        (lambda root: save_image(root, "a.png"), r"a\.png: shares its stem with a\.jpg"),
        (lambda root: (root / "images" / "b.txt").touch(), r"b\.txt: expected an image, one of: \.jpg"),
        (lambda root: (root / "masks" / "b.jpg").touch(), r"b\.jpg: expected a PNG mask"),
        (lambda root: (root / "masks" / "b").mkdir(), r"masks/b: no PNG inside"),
        (lambda root: save_mask(root, "a/1.png", ids(1)), r"masks/a.*exists too; expected either a mask file or"),
        (lambda root: save_mask(root, "a.png", ids()), "no image has an object"),
        (
            lambda root: save_mask(root, "a.png", np.zeros((HEIGHT, WIDTH, 3))),
            r"masks/a\.png: mask has mode RGB, expected one channel",
        ),
        (lambda root: (root / "masks" / "a.png").write_bytes(b"x"), r"masks/a\.png: cannot be read as an image"),
        (
            lambda root: (root / "masks" / "a.png").write_bytes((root / "masks" / "a.png").read_bytes()[:60]),
            r"masks/a\.png: cannot be read as an image",
        ),
    ],
)
def test_bad_folders_are_named_when_opened(root, prepare, message):
    prepare(root)
    with pytest.raises(RuacError, match=message):
        ImageMaskFolder(root)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(RuacError, match="images: folder not found; expected images/ and masks/"):
        ImageMaskFolder(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(RuacError, match="images: the folder is empty"):
        ImageMaskFolder(tmp_path)
    save_image(tmp_path, "a.jpg")
    with pytest.raises(RuacError, match="masks: the folder is empty"):
        ImageMaskFolder(tmp_path)


def test_a_mask_of_another_size_is_named_when_read(root):
    save_mask(root, "a.png", ids(1)[:10])
    with pytest.raises(RuacError, match=r"masks/a\.png: is 30x10 pixels, expected 30x20 like a\.jpg"):
        ImageMaskFolder(root)[0]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (ids(), r"b/1\.png: is empty, expected one object"),
        (ids(1, 2), r"b/1\.png: holds the values \[1, 2\], expected one object"),
        (ids(1)[:, :9], r"b/1\.png: is 9x20 pixels, expected 30x20"),
    ],
)
def test_bad_binary_masks_are_named_when_read(root, mask, message):
    save_image(root, "b.jpg")
    save_mask(root, "b/1.png", mask)
    with pytest.raises(RuacError, match=message):
        ImageMaskFolder(root)[1]


def test_a_truncated_image_is_named(root):
    path = root / "images" / "a.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(RuacError, match=r"a\.jpg: cannot be read as an image"):
        ImageMaskFolder(root)[0]


def test_a_folder_is_named_as_it_lies_or_as_asked(root):
    assert ImageMaskFolder(root).name == root.name
    assert ImageMaskFolder(root, name="asked").name == "asked"
