"""The predictor: what comes back, where clicks land, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import with_head
from PIL import Image
from scipy import ndimage
from torch import nn

from ruac.backbone import BackboneConfig
from ruac.base.errors import RuacError
from ruac.inference.export import export_model
from ruac.inference.model import Prediction, UncertainSam
from ruac.inference.predictor import Predictor
from ruac.inference.second_look import LooksConfig
from ruac.uncertainty import BayesianConfig

HEIGHT, WIDTH = 40, 100
CLICK = {"point_coords": np.array([[30.0, 20.0]]), "point_labels": np.array([1])}


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def with_scale(body):
    return with_head(body, BayesianConfig(logit_scale=True), scale=0.3)


@pytest.fixture(scope="module")
def predictor(make_nano, picture):
    predictor = Predictor(with_scale(make_nano()), device="cpu")
    predictor.set_image(picture)
    return predictor


def arrays(answer):
    return {name: value for name, value in vars(answer).items() if value is not None}


def assert_contours_agree(answer, within=1):
    """Calibrated before both are brought to full size: contours may differ within a cell, and nothing else may.

    within: the size of a cell in pixels of the picture, rounded up.
    """
    for mask, probability in zip(answer.masks, answer.probability, strict=True):
        assert mask.any()
        inner = ndimage.binary_erosion(mask, iterations=within, border_value=1)
        outer = ndimage.binary_dilation(mask, iterations=within)
        assert (probability > 0.5)[inner].all()
        assert not (probability > 0.5)[~outer].any()


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        (CLICK, 3),
        ({"point_coords": [[30, 20], [0, 0]], "point_labels": [1, 0]}, 3),
        ({"box": [5, 5, 60, 35]}, 3),
        ({"box": np.array([0, 0, WIDTH, HEIGHT]), **CLICK}, 3),
        ({"mask_input": np.full((16, 16), 3.0), **CLICK}, 3),
        ({"mask_input": np.full((1, 16, 16), 3.0)}, 3),
        ({"multimask_output": False, **CLICK}, 1),
        ({"point_coords": np.array([[30, 20]]), "point_labels": [True], "multimask_output": False}, 1),
    ],
)
def test_shapes_types_and_ranges(predictor, prompt, count):
    for decomposed in (False, True):
        answer = predictor.predict(**prompt, decomposed=decomposed)
        assert answer.masks.shape == answer.probability.shape == answer.uncertainty.shape == (count, HEIGHT, WIDTH)
        assert answer.masks.dtype == bool
        assert answer.logits.shape == (count, 16, 16)
        assert np.abs(answer.logits).max() <= 32
        assert answer.scores.shape == (count,)
        assert (np.diff(answer.scores) <= 0).all()
        for name, value in arrays(answer).items():
            if name not in ("masks", "tokens"):
                assert value.dtype == np.float32, name
            if name not in ("masks", "logits", "tokens"):
                assert value.min() >= 0, name
                assert value.max() <= 1, name
        assert_contours_agree(answer)
        assert (answer.aleatoric is not None) == (answer.epistemic is not None) == decomposed
        if decomposed:
            assert answer.aleatoric.shape == answer.epistemic.shape == (count, HEIGHT, WIDTH)
            assert answer.epistemic.max() > 0


def test_uncertainty_is_the_entropy_of_the_probability(predictor):
    answer = predictor.predict(**CLICK, decomposed=True)
    p = answer.probability.astype(float)
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    np.testing.assert_allclose(answer.uncertainty, entropy, atol=1e-4)
    # The parts are made at stride 4, the total at the picture's size: close, not equal.
    np.testing.assert_allclose(answer.aleatoric + answer.epistemic, answer.uncertainty, atol=0.1)


def test_without_a_head_there_is_probability_but_no_parts(make_nano, picture):
    predictor = Predictor(UncertainSam(make_nano(), None), device="cpu")
    predictor.set_image(picture)
    answer = predictor.predict(**CLICK, decomposed=True)
    assert answer.aleatoric is None
    assert answer.epistemic is None
    np.testing.assert_array_equal(answer.masks, answer.probability > 0.5)


class Pointer(UncertainSam):
    """A model whose mask is a disc around the last click, in model pixels."""

    def __init__(self):
        nn.Module.__init__(self)
        self.backbone = SimpleNamespace(
            single_mask=lambda decoded: torch.zeros(1, dtype=torch.int64),
            frame=lambda size: (128, 128),
            mask_stride=4,
            boxes_only=False,
        )
        self.filters, self.looks = (), None

    def encode(self, images):
        self.seen = images
        return None

    def decode(self, features, prompts):
        y, x = torch.meshgrid(4 * torch.arange(32) + 1.5, 4 * torch.arange(32) + 1.5, indexing="ij")
        distance = ((x - prompts.points[0, -1, 0]) ** 2 + (y - prompts.points[0, -1, 1]) ** 2).sqrt()
        logits = (15 - distance).expand(1, 4, 32, 32)
        return Prediction(logits, torch.rand(1, 4), SimpleNamespace(), None)


@pytest.mark.parametrize(("height", "width"), [(64, 256), (300, 100), (128, 128)])
def test_clicks_land_where_they_are_put(height, width):
    predictor = Predictor(Pointer(), device="cpu")
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = 255
    predictor.set_image(picture)
    seen = predictor.model.seen[0]
    assert (seen[:, :60, :60] > 0).all()  # the bright quarter fills a quarter of the square
    assert (seen[:, 68:, 68:] < 0).all()
    for share_x, share_y in ((0.25, 0.75), (0.5, 0.3)):
        click = np.array([[share_x * width, share_y * height]])
        y, x = np.nonzero(predictor.predict(point_coords=click, point_labels=[1], multimask_output=False).masks[0])
        assert x.mean() == pytest.approx(click[0, 0], abs=0.02 * width)
        assert y.mean() == pytest.approx(click[0, 1], abs=0.02 * height)
        assert np.ptp(x) / width == pytest.approx(np.ptp(y) / height, abs=0.05)  # round in the square


def test_the_answer_depends_on_this_prompt_and_image_alone(predictor, make_nano, picture):
    first = predictor.predict(**CLICK, decomposed=True)
    predictor.predict(point_coords=[[80, 5]], point_labels=[0], mask_input=first.logits[0], multimask_output=False)
    predictor.set_image(picture[::-1])
    assert not np.array_equal(predictor.predict(**CLICK).logits, first.logits)
    predictor.set_image(picture)
    fresh = Predictor(with_scale(make_nano()), device="cpu")
    fresh.set_image(picture)
    for other in (predictor, fresh):
        again = arrays(other.predict(**CLICK, decomposed=True))
        for name, value in arrays(first).items():
            np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_arguments_are_not_changed(predictor):
    points, mask = np.array([[30.0, 20.0]]), np.full((16, 16), 100.0)
    predictor.predict(point_coords=points, point_labels=[1], mask_input=mask)
    assert points.tolist() == [[30, 20]]
    assert (mask == 100).all()


def test_pictures_in_every_form(make_nano, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "a.png")
    predictor = Predictor(with_scale(make_nano()), device="cpu")
    found = []
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    same = (picture, Image.fromarray(picture), tmp_path / "a.png", str(tmp_path / "a.png"), tensor, tensor / 255)
    for image in (*same, picture[:, ::-1]):
        predictor.set_image(image)
        found.append(predictor.predict(**CLICK).logits)
    assert all(np.array_equal(found[0], other) for other in found[1:-1])
    assert not np.array_equal(found[0], found[-1])
    alpha = Image.fromarray(picture).convert("RGBA")
    predictor.set_image(alpha)
    assert np.array_equal(predictor.predict(**CLICK).logits, found[0])


def test_an_exported_folder(make_nano, picture, tmp_path, predictor):
    model = with_scale(make_nano())
    out = export_model(model, BackboneConfig(image_size=64), tmp_path / "out", with_backbone=True)
    loaded = Predictor(out, device="cpu")
    loaded.set_image(picture)
    expected = arrays(predictor.predict(**CLICK))
    for name, value in arrays(loaded.predict(**CLICK)).items():
        np.testing.assert_array_equal(value, expected[name])
    with pytest.raises(RuacError, match="absent"):
        Predictor(tmp_path / "absent")


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[[0, 0, 0]]],
        torch.zeros(4, 4, 3, dtype=torch.uint8),
        torch.full((3, 4, 4), -0.5),
        torch.full((3, 4, 4), torch.nan),
        torch.zeros(1, 3, 4, 4),
        None,
    ],
)
def test_bad_images(nano, image):
    with pytest.raises(RuacError, match=r"^image: "):
        Predictor(UncertainSam(nano, None), device="cpu").set_image(image)


def test_bad_files(nano, tmp_path):
    predictor = Predictor(UncertainSam(nano, None), device="cpu")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(RuacError, match=r"text\.png: cannot be read as an image"):
        predictor.set_image(tmp_path / "text.png")
    with pytest.raises(RuacError, match=r"absent\.png: image file not found"):
        predictor.set_image(str(tmp_path / "absent.png"))
    with pytest.raises(RuacError, match="no image; call set_image first"):
        predictor.predict(**CLICK)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "no prompt; expected point_coords with point_labels, a box or a mask_input"),
        ({"point_coords": np.zeros((0, 2)), "point_labels": []}, "no prompt"),
        ({"point_coords": [[1, 2]]}, r"point_coords \(1, 2\) and point_labels \(0,\): expected \[P, 2\] and \[P\]"),
        ({"point_labels": [1]}, r"point_coords \(0,\) and point_labels \(1,\)"),
        ({"point_labels": [1], "box": [1, 1, 5, 5]}, r"point_coords \(0,\) and point_labels \(1,\)"),
        ({"point_coords": [1, 2], "point_labels": [1]}, r"point_coords \(2,\)"),
        ({"point_coords": [[1, 2, 3]], "point_labels": [1]}, r"point_coords \(1, 3\)"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 0]}, r"point_labels \(2,\)"),
        (
            {"point_coords": [[1, 2]], "point_labels": [2]},
            r"point_labels: \[2.0\], expected 1 \(object\), 0 \(background\)",
        ),
        ({"point_coords": [[1, 2]], "point_labels": [1.5]}, "point_labels: "),
        ({"point_coords": [[1, 2]], "point_labels": ["object"]}, "point_labels: .*expected an array of numbers"),
        ({"point_coords": [[1, 2], [3]], "point_labels": [1, 1]}, "point_coords of 2, point_labels of 1 objects"),
        ({"point_coords": [[np.nan, 2]], "point_labels": [1]}, "point_coords: expected finite numbers"),
        ({"point_coords": [[-1, 2]], "point_labels": [1]}, "outside the 100x40 picture"),
        ({"point_coords": [[1, 41]], "point_labels": [1]}, "outside the 100x40 picture"),
        ({"point_coords": [[101, 2]], "point_labels": [1]}, "outside the 100x40 picture"),
        ({"box": [5, 5, 5, 9]}, "box: .*expected x0 y0 x1 y1 with x0 < x1 and y0 < y1"),
        ({"box": [5, 9, 8, 5]}, "box: "),
        ({"box": [5, 5, 9]}, "box: "),
        ({"box": [[5, 5, 9]]}, "box: "),
        ({"box": [[5, 5, 9, 9], [1, 2, 30, 30]], **CLICK}, "point_coords of 1, point_labels of 1, box of 2 objects"),
        ({"point_coords": [[[1, 2]], [[3, 4]]], "point_labels": [1]}, "point_coords of 2, point_labels of 1 objects"),
        ({"box": [5, 5, np.inf, 9]}, "box: expected finite numbers"),
        ({"box": "everything"}, "box: 'everything', expected an array of numbers"),
        ({"box": [5, 5, 101, 9]}, "outside the 100x40 picture"),
        ({"mask_input": np.zeros((1, 17, 16)), **CLICK}, r"mask_input: \(1, 17, 16\), expected \[16, 16\] logits"),
        ({"mask_input": np.zeros((HEIGHT, WIDTH)), **CLICK}, "mask_input: "),
        ({"mask_input": np.full((16, 16), np.nan), **CLICK}, "mask_input: expected finite numbers"),
    ],
)
def test_bad_prompts(predictor, prompt, message):
    with pytest.raises(RuacError, match=message):
        predictor.predict(**prompt)


def test_the_embedded_default_reads_its_own_answer_and_moves_no_mask():
    predictor = Predictor()
    assert predictor.model.head.config.local_temperature
    picture = np.full((60, 80, 3), 60, np.uint8)
    picture[18:44, 25:58] = (210, 90, 40)  # something to segment: of noise a mask may be empty
    predictor.set_image(picture)
    answer = predictor.predict(point_coords=[[40, 30]], point_labels=[1])
    vanilla = Predictor(UncertainSam(predictor.model.backbone, None))
    vanilla.set_image(picture)
    plain = vanilla.predict(point_coords=[[40, 30]], point_labels=[1])
    for name in ("masks", "scores", "logits"):
        np.testing.assert_array_equal(getattr(answer, name), getattr(plain, name), err_msg=name)
    assert np.abs(answer.uncertainty - plain.uncertainty).mean() > 0.01  # it does say something of its own
    assert_contours_agree(answer, within=2)  # 80 pixels in 64 cells
    assert predictor.model.reader.config.look == "zoom"
    assert predictor.model.looks is None, "a second look costs, and is for those who ask"


def test_a_second_look_gives_one_mask_with_all_maps(predictor):
    once = predictor.predict(**CLICK)
    looked = predictor.predict(**CLICK, looks=["zoom"])
    assert looked.masks.shape == looked.probability.shape == looked.uncertainty.shape == (1, HEIGHT, WIDTH)
    np.testing.assert_array_equal(looked.logits, once.logits[:1])
    assert not np.array_equal(looked.probability, once.probability[:1])
    np.testing.assert_allclose(looked.aleatoric + looked.epistemic, looked.uncertainty, atol=1e-6)
    kept = predictor.predict(**CLICK, looks=LooksConfig(keep_masks=True))
    np.testing.assert_array_equal(kept.masks, once.masks[:1])
    np.testing.assert_array_equal(kept.probability, looked.probability)
    with pytest.raises(RuacError, match="'zom', expected zoom"):
        predictor.predict(**CLICK, looks="zom")


def test_a_model_that_looks_again_does_so_unasked(make_nano, picture):
    model = with_scale(make_nano())
    model.looks = LooksConfig(looks=["flip"])
    predictor = Predictor(model, device="cpu")
    predictor.set_image(picture)
    assert predictor.predict(**CLICK).masks.shape[0] == 1
