import warnings

import numpy as np
import pytest
from PIL import Image

from ruac.base.errors import RuacError
from ruac.evaluation.report import overlay
from ruac.evaluation.report.overlay import draw_overlay, paint_mask, paint_uncertainty, save_overlay, uncertainty_colors

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
MASK = np.zeros((60, 80), bool)
MASK[20:45, 30:60] = True
NOTHING = np.zeros((60, 80), np.float32)


def has_color(picture, color, tolerance=12):
    return (np.abs(picture.astype(int) - color).max(-1) <= tolerance).any()


def test_paint_mask_changes_the_mask_only():
    painted = paint_mask(IMAGE, MASK, (1.0, 0.0, 0.0), opacity=0.5)
    np.testing.assert_array_equal(painted[~MASK], IMAGE[~MASK])
    np.testing.assert_allclose(painted[MASK], IMAGE[MASK] * 0.5 + [127.5, 0, 0], atol=0.51)


def test_uncertainty_is_brighter_where_higher_and_its_bar_shows_the_same_colors():
    ramp = np.tile(np.linspace(0, 1, 80, dtype=np.float32), (60, 1))
    flat = np.full_like(IMAGE, 110)
    luminance = paint_uncertainty(flat, ramp)[0].astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(luminance) > -1).all()
    assert luminance[-1] > luminance[0] + 120
    first, last = (tuple(bytes.fromhex(c[1:])) for c in (uncertainty_colors()[0], uncertainty_colors()[-1]))
    assert (first, last) == (tuple(paint_uncertainty(flat, ramp)[0, 0]), tuple(paint_uncertainty(flat, ramp)[0, -1]))


def test_draw_overlay_shows_clicks_in_their_colors():
    plain = draw_overlay(IMAGE // 2, MASK, NOTHING)
    points, labels = [[40.0, 30.0], [5.0, 5.0]], [1, 0]
    marked = draw_overlay(IMAGE // 2, MASK, NOTHING, points=points, labels=labels)
    green, red = (0x16, 0xA3, 0x4A), (0xDC, 0x26, 0x26)
    assert plain.dtype == np.uint8
    assert plain.ndim == 3
    assert plain.shape == marked.shape
    assert has_color(marked, green)
    assert has_color(marked, red)
    assert not has_color(draw_overlay(IMAGE // 2, MASK, NOTHING, points=points, labels=[1, -1]), red)


def test_draw_overlay_shows_a_box():
    boxed = draw_overlay(IMAGE // 2, MASK, NOTHING, points=[[10, 10], [70, 50]], labels=[2, 3])
    assert (boxed != draw_overlay(IMAGE // 2, MASK, NOTHING)).any()


def test_draw_overlay_does_not_depend_on_what_was_drawn_before():
    first = draw_overlay(IMAGE, MASK, NOTHING, title="a")
    draw_overlay(IMAGE, ~MASK, NOTHING + 1, title="b")
    np.testing.assert_array_equal(draw_overlay(IMAGE, MASK, NOTHING, title="a"), first)


@pytest.mark.parametrize("mask", [np.zeros_like(MASK), np.ones_like(MASK)], ids=["empty", "full"])
@pytest.mark.parametrize("shape", [(60, 80), (8, 80), (80, 8), (1, 1)], ids=str)
def test_draw_overlay_takes_any_mask_and_shape_in_silence(mask, shape):
    mask = np.full(shape, mask.all())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = draw_overlay(np.full((*shape, 3), 90, np.uint8), mask, np.zeros(shape), title="50 $x_1$ % $")
    assert max(picture.shape) < 4000


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("image", (IMAGE.astype(np.float32), MASK, NOTHING)),
        ("mask", (IMAGE, MASK.T, NOTHING)),
        ("uncertainty", (IMAGE, MASK, NOTHING[:5])),
    ],
)
def test_draw_overlay_names_what_does_not_fit(name, arguments):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        draw_overlay(*arguments)
    with pytest.raises(ValueError, match="labels: expected 1"):
        draw_overlay(IMAGE, MASK, NOTHING, points=[[1, 2]], labels=[1, 0])


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP"), ("a.tif", "TIFF"), ("a", "PNG")]
)
def test_the_name_says_the_format(tmp_path, name, kind):
    save_overlay(tmp_path / name, IMAGE, MASK, NOTHING)
    with Image.open(tmp_path / name) as image:
        assert image.format == kind


def test_a_name_of_no_picture_is_refused(tmp_path):
    with pytest.raises(RuacError, match=r"a\.txt: expected a name that ends in \.png, \.jpg"):
        save_overlay(tmp_path / "a.txt", IMAGE, MASK, NOTHING)
    assert not list(tmp_path.iterdir())


def test_save_overlay_writes_a_png_or_nothing(tmp_path):
    path = tmp_path / "new" / "overlay.png"
    save_overlay(path, IMAGE, MASK, NOTHING, title="title")
    with Image.open(path) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), draw_overlay(IMAGE, MASK, NOTHING, title="title"))
    assert [p.name for p in path.parent.iterdir()] == ["overlay.png"]
    (tmp_path / "file").touch()
    with pytest.raises(RuacError, match="file"):
        save_overlay(tmp_path / "file" / "overlay.png", IMAGE, MASK, NOTHING)


def test_a_large_picture_is_drawn_as_its_reduction(monkeypatch):
    """Twice the size with every pixel four times is the same drawing, from a quarter of the maps."""
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (24, 32, 3), np.uint8), np.zeros((24, 32), bool)
    mask[5:15, 8:20] = True
    uncertainty = rng.random((24, 32)).astype(np.float32)
    points = np.array([[10.0, 7.0], [3.0, 20.0]])
    small = draw_overlay(image, mask, uncertainty, points=points)
    monkeypatch.setattr(overlay, "LONGEST", 32)
    large = [part.repeat(2, axis=0).repeat(2, axis=1) for part in (image, mask, uncertainty)]
    np.testing.assert_array_equal(draw_overlay(*large, points=2 * points + 0.5), small)
    moved = draw_overlay(*large, points=2 * points + 8.5)
    assert (moved != small).any()
