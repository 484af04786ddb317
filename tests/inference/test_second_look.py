"""A second look: exact where it sees the same, averaged where it sees more, nothing where it cannot."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ruac.backbone import Decoded, Features
from ruac.backbone.outputs import upsample
from ruac.backbone.prompts import OBJECT, Prompts
from ruac.base.errors import RuacError
from ruac.calibration import KindSettings, build_calibrator
from ruac.inference.look_mean import combine, look_again
from ruac.inference.model import UncertainSam, predict
from ruac.inference.second_look import AUTO, LooksConfig, Question, ask_look
from ruac.inference.views import View
from ruac.uncertainty import BayesianConfig, build_head

SIDE = 64


def question(model, image, points):
    """The first answer to clicks ``[N, 2]`` in picture pixels, best candidate."""
    height, width = image.shape[:2]
    from ruac.data.augment import prepare

    with torch.no_grad():
        features = model.encode(prepare(image, SIDE)).expand(len(points))
        scaled = torch.tensor(points, dtype=torch.float32) * torch.tensor([SIDE / width, SIDE / height])
        prompts = Prompts(scaled[:, None], torch.full((len(points), 1), OBJECT))
        prediction = model.decode(features, prompts)
    choice = prediction.iou[:, 1:].argmax(dim=1) + 1
    logits = prediction.logits[torch.arange(len(points)), choice][:, None]
    masks = (upsample(logits, (height, width))[:, 0] > 0).numpy()
    return Question(image, prompts, prediction, choice, masks)


class Analytic(UncertainSam):
    """Answers with what it is shown: the logit is the red channel of the model's square, whatever is asked.

    So the same place of the picture gets the same logit from any window, up to resampling.
    """

    def __init__(self, backbone, head=None):
        super().__init__(backbone, head)
        self.encoded = 0

    def encode(self, images):
        self.encoded += len(images)
        return Features(images, [images, images])

    def decode(self, features, prompts, decoded=None):
        return predict(answer(features, prompts), self.head)


def answer(features, prompts):
    red = torch.nn.functional.avg_pool2d(features.embedding[:, :1], 4)
    logits = red.expand(-1, 4, -1, -1) * torch.tensor([1.0, 1.0, 2.0, 0.5]).view(1, 4, 1, 1)
    n, cells = len(red), red.shape[-1]
    iou = torch.tensor([0.1, 0.2, 0.9, 0.3]).expand(n, 4)
    return Decoded(
        logits, iou, torch.zeros(n, 1), torch.zeros(n, 4, 8), torch.rand(n, 2, cells, cells), torch.rand(n, 4, 2)
    )


@pytest.fixture
def analytic(make_nano, monkeypatch):
    model = Analytic(make_nano(SIDE))
    monkeypatch.setattr(model.backbone, "decode", answer)
    return model


def picture(height=48, width=72):
    y, x = np.mgrid[:height, :width]
    bright = 90 + 80 * np.exp(-((x - 30) ** 2 + (y - 20) ** 2) / 60)
    return np.repeat(bright[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("head", [None, BayesianConfig(logit_scale=True)])
def test_a_look_at_identical_scale_changes_nothing_to_the_last_bit(make_nano, head):
    body = make_nano(SIDE)
    built = head and build_head(head, token_dim=body.token_dim, channels=body.channels).eval()
    model = UncertainSam(body, built)
    config = LooksConfig(margin=50.0, largest=1.0, feedback=False)
    asked = question(model, picture(), [(30.0, 20.0), (5.0, 40.0)])
    with torch.no_grad():
        look = ask_look(model, config, asked, "zoom")
        assert look.views == [View.whole((48, 72))] * 2
        assert torch.equal(look.prediction.logits, asked.prediction.logits)
        looked = combine(asked, [look], config)
        maps = asked.prediction.maps(asked.choice[:, None], (48, 72))
    assert np.array_equal(looked.masks, asked.masks)
    assert torch.equal(looked.maps.probability, maps.probability)
    torch.testing.assert_close(looked.maps.total, maps.total, atol=1e-5, rtol=0)
    assert looked.maps.own["mutual_information"].abs().max() < 1e-5
    assert looked.looks.tolist() == [1, 1]


def test_what_is_not_looked_at_again_stays_as_it_is(analytic):
    image = np.full((48, 72, 3), 200, np.uint8)  # the mask is all of the picture
    asked = question(analytic, image, [(30.0, 20.0)])
    before = analytic.encoded
    looked = look_again(analytic, LooksConfig(), asked)
    maps = asked.prediction.maps(asked.choice[:, None], (48, 72))
    assert looked.masks is asked.masks
    assert torch.equal(looked.maps.total, maps.total)
    assert looked.looks.tolist() == [0]
    assert analytic.encoded == before


def test_auto_looks_again_at_small_objects_only_and_sees_what_a_zoom_sees(analytic):
    y, x = np.mgrid[:96, :144]
    bright = np.full((96, 144), 90.0)
    bright[(x - 20) ** 2 + (y - 20) ** 2 < 36] = 200
    asked = question(analytic, np.repeat(bright[..., None], 3, axis=2).astype(np.uint8), [(20.0, 20.0)] * 2)
    asked.masks[:] = False
    asked.masks[0, 15:26, 15:26] = True  # a window of about a fifth of the side
    asked.masks[1, 15:65, 15:65] = True  # and of more than 0.55
    zoom, auto = (ask_look(analytic, LooksConfig(), asked, look) for look in ("zoom", "auto"))
    assert (zoom.index, auto.index) == ([0, 1], [0])
    assert zoom.views[1].share > AUTO**2 >= auto.views[0].share
    assert auto.views[0] == zoom.views[0]
    assert torch.equal(auto.prediction.logits, zoom.prediction.logits[:1])


def test_a_kept_mask_is_in_certain_doubt_where_the_looks_contradict_it(analytic):
    asked = question(analytic, picture(), [(30.0, 20.0)])
    config = LooksConfig(keep_masks=True)
    look = ask_look(analytic, config, asked, "zoom")
    sure = replace(look, prediction=replace(look.prediction, logits=-9 * look.prediction.logits))
    looked = combine(asked, [sure], config)
    against = (looked.maps.probability[0, 0] > 0.5).numpy() != asked.masks[0]
    assert looked.masks is asked.masks
    assert against.mean() > 0.05
    assert (looked.maps.total[0, 0].numpy()[against] == 1).all()
    assert (looked.maps.total[0, 0].numpy()[~against] < 1).any()


@pytest.mark.parametrize("look", ["zoom", "zoom+flip", "flip", "zoom:2.4"])
def test_the_same_place_gets_the_same_logit_from_any_window(analytic, look):
    """With a model that answers by what it sees, a look adds only what resampling loses: geometry is right."""
    asked = question(analytic, picture(), [(30.0, 20.0)])
    config = LooksConfig(looks=[look])
    looked = look_again(analytic, config, asked)
    once = asked.prediction.maps(asked.choice[:, None], (48, 72)).probability[0, 0]
    assert looked.looks.tolist() == [1]
    assert (looked.maps.probability[0, 0] - once).abs().max() < 0.06
    assert (looked.masks != asked.masks).mean() < 0.02
    shifted = torch.roll(once, 3, dims=1)
    assert (once - shifted).abs().max() > 0.1  # three pixels to the side would have shown


def test_averages_entropies_and_soft_edges_by_hand(analytic):
    asked = question(analytic, picture(), [(30.0, 20.0)])
    config = LooksConfig(edge=0.25)
    look = ask_look(analytic, config, asked, "zoom")
    opposite = replace(look, prediction=replace(look.prediction, logits=-look.prediction.logits))
    looked = combine(asked, [opposite], config)
    view, token = look.views[0], look.choice[0]
    grown = view.grown(0.25)
    first = upsample(asked.prediction.logits[:, asked.choice[0]][:, None], (48, 72))[0, 0].double().sigmoid()
    inside = view.spread(view.place(-look.prediction.logits[:, token][:, None]), grown)[0, 0].double().sigmoid()
    weight = view.weight(0.25).double()
    expected = first.clone()
    expected[grown.window] = (first[grown.window] + weight * inside) / (1 + weight)
    torch.testing.assert_close(looked.maps.probability[0, 0].double(), expected, atol=1e-6, rtol=1e-5)

    def entropy(p):
        return -(p * p.log2() + (1 - p) * (1 - p).log2())

    torch.testing.assert_close(looked.maps.total[0, 0].double(), entropy(expected), atol=1e-5, rtol=0)
    mean = entropy(first)
    mean[grown.window] = (entropy(first)[grown.window] + weight * entropy(inside)) / (1 + weight)
    information = looked.maps.own["mutual_information"][0, 0].double()
    torch.testing.assert_close(information, entropy(expected) - mean, atol=1e-5, rtol=0)
    assert information.max() > 0.1
    assert information[:, grown.right :].abs().max() < 1e-6
    torch.testing.assert_close(
        looked.maps.parts["aleatoric"] + looked.maps.parts["epistemic"], looked.maps.total, atol=1e-6, rtol=0
    )
    # No seam: what the look changes fades out beyond the window's border.
    change = (looked.maps.probability[0, 0] - first).abs()
    assert change.max() > 0.2
    assert view.right < grown.right < 72
    assert change[:, grown.right - 1].max() < change[:, view.right].max() < 0.5
    assert change[:, grown.right - 1].max() < 0.01
    assert change[:, grown.right :].max() < 1e-6


def test_kept_masks_are_kept_and_returned_ones_are_the_mean_s(analytic):
    asked = question(analytic, picture(), [(30.0, 20.0)])
    kept = look_again(analytic, LooksConfig(keep_masks=True), asked)
    assert kept.masks is asked.masks
    averaged = look_again(analytic, LooksConfig(), asked)
    decided = (averaged.maps.probability[:, 0] - 0.5).abs() > 1e-6
    assert (((averaged.maps.probability[:, 0] > 0.5) == torch.from_numpy(averaged.masks)) | ~decided).all()
    assert torch.equal(kept.maps.probability, averaged.maps.probability)


def test_a_head_moves_no_averaged_mask(make_nano):
    body = make_nano(SIDE)
    asked = [(30.0, 20.0), (50.0, 10.0)]
    masks = []
    for config in (None, BayesianConfig(logit_scale=True)):
        head = config and build_head(config, token_dim=body.token_dim, channels=body.channels).eval()
        model = UncertainSam(body, head)
        with torch.no_grad():
            masks.append(
                look_again(model, LooksConfig(looks=["zoom", "flip"]), question(model, picture(), asked)).masks
            )
    assert np.array_equal(*masks)


@pytest.mark.parametrize(("boxes_only", "feedback", "shown"), [(False, None, True), (True, None, False),
                                                               (True, True, True), (False, False, False)])  # fmt: skip
def test_a_look_is_shown_the_first_mask_where_the_backbone_knows_masks(
    analytic, monkeypatch, boxes_only, feedback, shown
):
    seen = []
    asked = question(analytic, picture(), [(30.0, 20.0)])
    monkeypatch.setattr(analytic.backbone, "boxes_only", boxes_only)
    decode = analytic.decode
    monkeypatch.setattr(analytic, "decode", lambda f, p, known=None: seen.append(p.mask_logits) or decode(f, p))
    ask_look(analytic, LooksConfig(feedback=feedback), asked, "zoom")
    assert [mask is not None for mask in seen] == [shown]


def test_equal_windows_are_encoded_once(analytic):
    asked = question(analytic, picture(), [(30.0, 20.0)] * 3)
    before = analytic.encoded
    looked = look_again(analytic, LooksConfig(looks=["zoom", "flip"]), asked)
    assert analytic.encoded - before == 2
    assert looked.looks.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"looks": []}, "at least one"),
        ({"looks": ["zom"]}, "'zom', expected zoom, flip, zoom"),
        ({"looks": ["zoom:x"]}, "'zoom:x', expected"),
        ({"looks": ["zoom:0.5"]}, "at least 1"),
        ({"looks": ["zoom:"]}, "'zoom:', expected"),
        ({"looks": ["zoom", "zoom"]}, "at most once"),
        ({"margin": 0.5}, "margin: 0.5"),
        ({"edge": 2.0}, "edge: 2.0"),
    ],
)
def test_unusable_configs_are_refused(values, message):
    with pytest.raises(RuacError, match=message):
        LooksConfig(**values).validate()


@pytest.mark.parametrize("local", [False, True])
def test_every_look_goes_through_the_calibrator(make_nano, local):
    """Seen whole, both looks have the calibrated answer, and so has their mean: to the last bit."""
    calibrator = build_calibrator("local" if local else "temperature", KindSettings())
    with torch.no_grad():
        for tensor in calibrator.state_dict().values():
            tensor.fill_(0.1)
    body = make_nano(SIDE)
    model = UncertainSam(body, None, calibrator=calibrator.eval())
    with torch.no_grad():
        asked = question(model, picture(), [(30.0, 20.0)])
        plain = question(UncertainSam(body, None), picture(), [(30.0, 20.0)])
        looked = look_again(model, LooksConfig(margin=50.0, largest=1.0, feedback=False), asked)
    once, uncalibrated = (each.prediction.maps(each.choice[:, None], (48, 72)).probability for each in (asked, plain))
    assert torch.equal(looked.maps.probability, once)
    assert not torch.allclose(once, uncalibrated, atol=1e-3)
    assert np.array_equal(looked.masks, plain.masks)
