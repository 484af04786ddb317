"""Pictures of every data set with an EXIF orientation: annotations of the stored pixels, and of what a person sees."""

import numpy as np
import pytest
from native_formats import HEIGHT, WIDTH, rect, write_image, write_json
from native_trees import TREES
from PIL import Image
from test_domains import content, same

from ruac.data.domains import open_domain
from ruac.data.sample import read_image

WITHOUT_SIZES = ("streets", "ndd20", "woodscape", "visor", "ibd")  # VIA keeps none, nor do the JSON files of others
ON_ITS_SIDE = Image.Exif()
ON_ITS_SIDE[0x0112] = 6  # shown turned by 90 degrees


def mark(path, *, turned):
    """Give a picture the orientation; turned: and lay its pixels on their side, so that it is seen as it was."""
    with Image.open(path) as image:
        kind, pixels = image.format, image.convert("RGB")
    pixels = pixels.transpose(Image.ROTATE_90) if turned else pixels
    pixels.save(path, kind, exif=ON_ITS_SIDE.tobytes())


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("option", ["none", "stored"])
def test_annotations_of_the_stored_pixels_are_told_by_their_size_or_by_the_option(name, option, tmp_path):
    expected = TREES[name](tmp_path)
    for path in {record.path for record in open_domain(name, tmp_path).records}:
        mark(path, turned=False)
    if option == "none" and name in WITHOUT_SIZES:
        assert open_domain(name, tmp_path)[0].image.shape[:2] == (WIDTH, HEIGHT)  # nobody says otherwise
        return
    dataset = open_domain(name, tmp_path, orientation="stored" if option == "stored" else "seen")
    same(content(dataset), expected)
    sample = dataset[0]
    np.testing.assert_array_equal(sample.image, np.asarray(Image.open(sample.record.path).convert("RGB")))


@pytest.mark.parametrize("name", TREES)
def test_annotations_of_the_seen_picture(name, tmp_path):
    expected = TREES[name](tmp_path)
    for path in {record.path for record in open_domain(name, tmp_path).records}:
        mark(path, turned=True)
    dataset = open_domain(name, tmp_path)
    same(content(dataset), expected)
    sample = dataset[0]
    np.testing.assert_array_equal(sample.image, read_image(sample.record.path))
    assert sample.image.shape[:2] != np.asarray(Image.open(sample.record.path)).shape[:2]


@pytest.mark.parametrize("height", [HEIGHT, 5])
def test_a_size_that_fits_neither_way_tells_nothing(height, tmp_path):
    """labelme keeps a size, which people's own exports get wrong."""
    write_image(tmp_path / "val/a.png")
    roof = {"label": "roof", "shape_type": "polygon", "points": [[2, 3], [9, 3], [9, 8], [2, 8]]}
    write_json(tmp_path / "val/a.json", {"shapes": [roof], "imageHeight": height, "imageWidth": WIDTH})
    mark(tmp_path / "val/a.png", turned=height == 5)
    dataset = open_domain("ibd", tmp_path)
    same(content(dataset), {"val/a.png": {"0": rect(2, 3, 9, 8)}})
    assert dataset[0].image.shape[:2] == (HEIGHT, WIDTH)
