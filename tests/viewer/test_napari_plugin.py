"""Layers of napari: pixels and places in, mask and doubt out; without a screen, and the core without napari."""

from importlib.resources import files

import numpy as np
import pytest
from builders import with_head

from ruac.base.errors import RuacError
from ruac.inference.predictor import Predictor
from ruac.viewer.layers import answer_layers, picture_pixels

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def predictor(nano):
    return Predictor(with_head(nano, noise=0.3), device="cpu")


def test_the_layers_are_the_predictors_answer(predictor):
    (ids, _, kind), (doubt, about, image) = answer_layers(
        predictor, IMAGE, clicks=np.array([[30.0, 20.0]]), background=np.array([[5.0, 60.0]])
    )
    assert (kind, image, about["contrast_limits"]) == ("labels", "image", (0, 1))
    predictor.set_image(IMAGE)
    answer = predictor.predict([[20, 30], [60, 5]], [1, 0])
    np.testing.assert_array_equal(ids > 0, answer.masks[0])
    np.testing.assert_allclose(doubt, answer.uncertainty[0], atol=1e-6)


def test_every_box_is_an_object(predictor):
    boxes = np.array([[2.0, 3.0, 20.0, 30.0], [10.0, 20.0, 45.0, 60.0]])
    (ids, *_), (doubt, *_) = answer_layers(predictor, IMAGE, boxes=boxes, look=True)
    answers = predictor.predict(box=boxes[:, [1, 0, 3, 2]], looks=["zoom"]).each()
    above = int(np.argmax([answer.trust[0] for answer in answers]))
    assert (ids[answers[above].masks[0]] == above + 1).all()
    np.testing.assert_array_equal(ids > 0, answers[0].masks[0] | answers[1].masks[0])
    np.testing.assert_allclose(doubt, np.maximum(*(answer.uncertainty[0] for answer in answers)), atol=1e-6)
    with pytest.raises(RuacError, match="1 clicks and 2 boxes"):
        answer_layers(predictor, IMAGE, boxes=boxes, clicks=np.array([[3.0, 3.0]]))
    with pytest.raises(RuacError, match="no prompt"):
        answer_layers(predictor, IMAGE)


def test_pixels_as_they_are_shown():
    np.testing.assert_array_equal(picture_pixels(IMAGE, rgb=True, limits=(0, 9)), IMAGE)
    np.testing.assert_array_equal(picture_pixels(IMAGE / 255, rgb=True, limits=(0, 1)), IMAGE)
    grey = np.array([[100, 200, 300]], np.uint16)
    assert picture_pixels(grey, rgb=False, limits=(100, 300))[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(RuacError, match="expected one plane"):
        picture_pixels(np.zeros((3, 5, 5)), rgb=False, limits=(0, 1))


@pytest.mark.slow
def test_the_plugin_in_napari(predictor, monkeypatch):
    """The manifest is valid, a widget can be made of the command, and its layers lie where a moved picture lies.

    Without a window, whose canvas needs OpenGL.
    """
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    pytest.importorskip("napari", reason="needs the extra napari")
    npe2 = pytest.importorskip("npe2", reason="needs the extra napari")
    from magicgui import magicgui
    from napari.layers import Image, Layer, Points, Shapes

    from ruac.viewer import plugin

    manifest = npe2.PluginManifest.from_file(str(files("ruac.viewer") / "napari.yaml"))
    manifest.validate_imports()
    (command,), (widget,) = manifest.contributions.commands, manifest.contributions.widgets
    assert command.id == widget.command
    assert command.python_name == f"{plugin.__name__}:{plugin.segment.__name__}"
    controls = [control.name for control in magicgui(plugin.segment)]
    assert controls[:5] == ["picture", "clicks", "background", "boxes", "second_look"]

    monkeypatch.setattr(plugin, "_predictor", lambda: predictor)
    picture = Image(IMAGE, scale=(2, 2), translate=(10, 20))
    clicks = Points([[70.0, 60.0]])  # of the world: row 30, column 20
    boxes = Shapes([[[14, 26], [14, 80], [50, 80], [50, 26]]])
    expected = answer_layers(
        predictor, IMAGE, clicks=np.array([[30.0, 20.0]]), boxes=np.array([[2.0, 3.0, 20.0, 30.0]])
    )
    made = [Layer.create(*each) for each in plugin.segment(picture, clicks, boxes=boxes)]
    for layer, (data, about, kind) in zip(made, expected, strict=True):
        np.testing.assert_allclose(layer.data, data, atol=1e-6)
        assert (layer.name, type(layer).__name__.lower()) == (about["name"], kind)
        np.testing.assert_allclose(layer.data_to_world((5, 7)), picture.data_to_world((5, 7)))
