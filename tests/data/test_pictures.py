"""Pictures and masks as cameras, microscopes and annotation tools write them."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from ruac.base.errors import RuacError
from ruac.data.identity import image_names
from ruac.data.open import open_dataset, place_and_split
from ruac.data.sample import image_size, read_image
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import Predictor

H, W = 40, 56
ROWS, COLUMNS = np.mgrid[:H, :W]
DISC = (COLUMNS - 18) ** 2 + (ROWS - 14) ** 2 < 9**2
SEEN = np.full((H, W, 3), 70, np.uint8)
SEEN[DISC] = (230, 70, 40)
UNDO = {  # how a picture is stored so that EXIF orientation k shows it upright
    2: Image.FLIP_LEFT_RIGHT,
    3: Image.ROTATE_180,
    4: Image.FLIP_TOP_BOTTOM,
    5: Image.TRANSPOSE,
    6: Image.ROTATE_90,
    7: Image.TRANSVERSE,
    8: Image.ROTATE_270,
}


def stored(path, orientation, picture=SEEN):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).transpose(UNDO[orientation]).save(path, exif=exif.tobytes())
    return path


def coco(root, annotations, names=("a.png",), size=(H, W)):
    images = [
        {"id": number, "file_name": name, "height": size[0], "width": size[1]} for number, name in enumerate(names)
    ]
    (root / "annotations.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return root


def box(number=1, outline=(9, 5, 27, 5, 27, 23, 9, 23), **more):
    return {"id": number, "image_id": 0, "iscrowd": 0, "segmentation": [list(outline)]} | more


def pair(root, mask, picture=SEEN):
    for name, content in (("images", Image.fromarray(picture)), ("masks", mask)):
        (root / name).mkdir(parents=True)
        content.save(root / name / "a.png")
    return root


@pytest.mark.parametrize("suffix", [".png", ".tif"])  # Pillow itself turns the second
@pytest.mark.parametrize("orientation", UNDO)
def test_pictures_are_read_as_seen_or_as_stored(tmp_path, orientation, suffix):
    path = stored(tmp_path / f"a{suffix}", orientation)
    pixels = np.asarray(Image.fromarray(SEEN).transpose(UNDO[orientation]))
    np.testing.assert_array_equal(read_image(path), SEEN)
    np.testing.assert_array_equal(read_image(path, orientation="stored"), pixels)
    told = read_image(path, size=(W, H))  # fits the stored pixels of a picture on its side alone
    np.testing.assert_array_equal(told, pixels if orientation > 4 else SEEN)


@pytest.mark.parametrize("orientation", UNDO)
def test_annotations_of_the_seen_picture(tmp_path, orientation):
    (tmp_path / "images").mkdir()
    stored(tmp_path / "images" / "a.png", orientation)
    sample = open_dataset(coco(tmp_path, [box()]))[0]
    assert sample.image[14, 18].tolist() == [230, 70, 40]
    assert sample.masks[0, 14, 18]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_of_the_stored_pixels_are_told_by_their_size(tmp_path, orientation):
    (tmp_path / "images").mkdir()
    path = stored(tmp_path / "images" / "a.png", orientation)
    sample = open_dataset(coco(tmp_path, [box(outline=(2, 2, 20, 2, 20, 20))], size=(W, H)))[0]
    np.testing.assert_array_equal(sample.image, np.asarray(Image.open(path)))


def test_masks_of_the_stored_pixels_are_told_by_their_size(tmp_path):
    root = pair(tmp_path, Image.fromarray(DISC.T.astype(np.uint8)))
    path = stored(root / "images" / "a.png", 6)
    np.testing.assert_array_equal(open_dataset(root)[0].image, np.asarray(Image.open(path)))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_contrast_of_deep_pictures_is_kept_and_said(tmp_path, bits):
    top = (1 << bits) - 1
    Image.fromarray(np.where(DISC, top, top // 4).astype(np.uint16)).save(tmp_path / "a.png")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        picture = read_image(tmp_path / "a.png")
    assert (picture.max(), picture.min()) == (255, 255 * (top // 4) // top)
    assert [f"read as {bits} bit" in str(w.message) for w in said] == [True] * (bits < 16)


def test_transparent_pictures_are_laid_on_white(tmp_path):
    hidden = np.dstack([SEEN, np.where(DISC, 255, 0).astype(np.uint8)])
    Image.fromarray(hidden).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=r"a\.png: is transparent"):
        picture = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(picture, np.where(DISC[..., None], SEEN, 255))


def test_a_picture_above_the_limit_says_how_to_read_it(tmp_path, monkeypatch):
    """The guard is Pillow's own, and the variable that the message names raises it, for headers too."""
    path = tmp_path / "large.png"
    Image.fromarray(SEEN).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for read in (read_image, image_size):
        with pytest.raises(RuacError) as caught:
            read(path)
        assert "large.png: has 2240 pixels, expected at most 2000" in str(caught.value)
    monkeypatch.setenv(*str(caught.value).split()[-1].split("="))  # what it says
    np.testing.assert_array_equal(read_image(path), SEEN)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert image_size(path) == (H, W)
    monkeypatch.setenv("RUAC_MAX_PIXELS", "2239")
    with pytest.raises(RuacError, match=r"has 2240 pixels, expected at most 2239; .*RUAC_MAX_PIXELS=2240"):
        read_image(path)
    monkeypatch.setenv("RUAC_MAX_PIXELS", "many")
    with pytest.raises(RuacError, match=r"RUAC_MAX_PIXELS: 'many', expected a number"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".png"])
def test_of_several_pictures_in_a_file_the_first_is_read_and_it_is_said(tmp_path, suffix):
    first, other = Image.fromarray(SEEN), Image.fromarray(255 - SEEN)
    options = {"lossless": True} if suffix == ".webp" else {}
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=[other, other], **options)
    with pytest.warns(UserWarning, match=rf"a\{suffix}: holds \d pictures; the first is read"):
        picture = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(picture, SEEN, atol=3)  # a palette of GIF
    (tmp_path / "images").mkdir()
    (tmp_path / f"a{suffix}").rename(tmp_path / "images" / f"a{suffix}")
    with pytest.warns(UserWarning, match="the first is read"):
        sample = open_dataset(coco(tmp_path, [box()], names=(f"a{suffix}",)))[0]
    np.testing.assert_array_equal(sample.image, picture)


def test_a_single_picture_is_nothing_to_speak_of(tmp_path, recwarn):
    for suffix in (".tif", ".gif", ".webp", ".png", ".jpg"):
        Image.fromarray(SEEN).save(tmp_path / f"a{suffix}")
        read_image(tmp_path / f"a{suffix}")
    assert not recwarn.list


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_the_header_tells_the_size_as_seen(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    stored(path, 6)
    assert image_size(path) == (W, H)
    assert image_size(path, orientation="seen") == (H, W) == read_image(path).shape[:2]


def test_whatever_a_decoder_raises_is_an_unreadable_picture(tmp_path, monkeypatch):
    Image.fromarray(SEEN).save(tmp_path / "a.png")
    monkeypatch.setattr(ImageOps, "exif_transpose", lambda image: {}["no such key"])
    with pytest.raises(RuacError, match=r"a\.png: cannot be read as an image"):
        read_image(tmp_path / "a.png")


def test_a_soft_edge_is_no_object(tmp_path):
    mask = Image.fromarray((DISC * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    sample = open_dataset(pair(tmp_path, mask))[0]
    assert sample.record.object_ids == ("255",)
    assert abs(int(sample.masks.sum()) - int(DISC.sum())) <= 8


def test_a_jpeg_once_is_no_object(tmp_path):
    Image.fromarray((DISC * 255).astype(np.uint8)).save(tmp_path / "mask.jpg", quality=80)
    sample = open_dataset(pair(tmp_path / "set", Image.open(tmp_path / "mask.jpg")))[0]
    assert sample.record.object_ids == ("255",)
    assert (sample.masks[0] ^ DISC).sum() < 20


def test_void_is_no_object(tmp_path):
    square = (COLUMNS - 18) ** 2 + (ROWS - 14) ** 2
    ids = np.select([square < 49, square < 81], [1, 255], 0).astype(np.uint8)
    sample = open_dataset(pair(tmp_path, Image.fromarray(ids)))[0]
    assert sample.record.object_ids == ("1",)
    np.testing.assert_array_equal(sample.masks[0], ids == 1)


def test_objects_counted_up_to_255_stay(tmp_path):
    ids = np.zeros((H, W), np.uint8)
    ids[:5], ids[10:12], ids[20:30] = 1, 254, 255
    assert open_dataset(pair(tmp_path, Image.fromarray(ids))).records[0].object_ids == ("1", "254", "255")


@pytest.mark.parametrize("bare", [[], [[10, 10, 20, 20, 30, 30]], {"size": [H, W], "counts": [H * W]}])
def test_annotations_without_a_pixel_are_left_out_and_counted(tmp_path, bare):
    (tmp_path / "images").mkdir()
    Image.fromarray(SEEN).save(tmp_path / "images" / "a.png")
    with pytest.warns(UserWarning, match="1 annotations without a pixel left out, the first: 7"):
        dataset = open_dataset(coco(tmp_path, [box(), box(7, segmentation=bare)]))
    assert dataset.records[0].object_ids == ("1",)
    assert len(dataset[0].masks) == 1


def test_shares_of_the_picture_are_no_pixels(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(SEEN).save(tmp_path / "images" / "a.png")
    with pytest.raises(RuacError, match="expected pixels and not shares"):
        open_dataset(coco(tmp_path, [box(outline=(0.1, 0.1, 0.5, 0.1, 0.5, 0.5))]))[0]


def test_byte_order_mark(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(SEEN).save(tmp_path / "images" / "a.png")
    path = coco(tmp_path, [box()]) / "annotations.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    (tmp_path / "some.txt").write_bytes(b"\xef\xbb\xbfa.png\n")
    assert len(open_dataset(tmp_path, split="some")) == 1


def test_content_names_a_picture_and_not_its_size(tmp_path):
    root = pair(tmp_path, Image.fromarray(DISC.astype(np.uint8)))
    path = root / "images" / "a.png"
    Image.fromarray(SEEN).save(path, "BMP")
    size, before = path.stat().st_size, image_names(open_dataset(root))
    Image.fromarray(255 - SEEN).save(path, "BMP")
    assert path.stat().st_size == size
    assert image_names(open_dataset(root)) != before


@pytest.mark.parametrize("orientation", UNDO)
def test_the_predictor_sees_what_a_person_sees(tmp_path, nano, orientation):
    predictor = Predictor(UncertainSam(nano, None), device="cpu")
    answers = []
    path = stored(tmp_path / "a.png", orientation)
    for picture in (SEEN, path, Image.open(path)):
        predictor.set_image(picture)
        answers.append(predictor.predict(point_coords=[[18, 14]], point_labels=[1]))
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer.logits, answers[0].logits)
        np.testing.assert_array_equal(answer.masks, answers[0].masks)


def test_deep_pictures_are_the_same_as_path_and_as_image(tmp_path, nano):
    grey = np.where(DISC, 52000, 15000).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    predictor = Predictor(UncertainSam(nano, None), device="cpu")
    answers = []
    for picture in (tmp_path / "a.png", Image.open(tmp_path / "a.png"), Image.fromarray(grey.astype(np.int32))):
        predictor.set_image(picture)
        answers.append(predictor.predict(point_coords=[[18, 14]], point_labels=[1]).logits)
    np.testing.assert_array_equal(answers[1], answers[0])
    np.testing.assert_array_equal(answers[2], answers[0])
    with pytest.raises(RuacError, match="image: has floating-point pixels"):
        predictor.set_image(Image.fromarray((grey / 65535).astype(np.float32)))


def test_a_failed_picture_leaves_nothing_of_the_one_before(tmp_path, nano):
    predictor = Predictor(UncertainSam(nano, None), device="cpu")
    predictor.set_image(SEEN)
    with pytest.raises(RuacError, match="not found"):
        predictor.set_image(tmp_path / "missing.jpg")
    with pytest.raises(RuacError, match="no image; call set_image first"):
        predictor.predict(point_coords=[[18, 14]], point_labels=[1])


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_only_the_user_can_tell_what_half_a_turn_was_annotated_on(tmp_path, orientation):
    (tmp_path / "images").mkdir()
    path = stored(tmp_path / "images" / "a.png", orientation)
    coco(tmp_path, [box()])
    seen, as_stored = (open_dataset(tmp_path, orientation=kind)[0].image for kind in ("seen", "stored"))
    np.testing.assert_array_equal(seen, SEEN)
    np.testing.assert_array_equal(as_stored, np.asarray(Image.open(path)))
    with pytest.raises(RuacError, match="orientation: 'turned', expected seen or stored"):
        open_dataset(tmp_path, orientation="turned")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [("set", ("set", None)), ("set@val", ("set", "val")), ("a@b", ("a@b", None)), ("a@b@val", ("a@b", "val"))],
)
def test_places_and_splits(tmp_path, monkeypatch, entry, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a@b").mkdir()
    assert place_and_split(entry) == expected
