"""`ruac.Predictor` where a program has SAM 2's own predictor: the same calls, the same masks and scores."""

import numpy as np
import pytest
import torch

from ruac import Predictor
from ruac.backbone import Backbone, BackboneConfig, build_backbone
from ruac.backbone.sam2_parts import SAM2ImagePredictor
from ruac.base.errors import RuacError
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import LooksConfig
from ruac.uncertainty import BayesianConfig, BayesianHead

SIZES = ((40, 100), (64, 64), (90, 50))
CLICKS = np.array([[[30.0, 20.0], [3.0, 4.0]], [[80.0, 11.0], [20.5, 39.0]]])  # two objects, two points each
LABELS = np.array([[1, 0], [1, 1]])
BOXES = np.array([[5.0, 6.0, 70.0, 30.0], [1.0, 2.0, 20.0, 9.0]])


def with_head(body: Backbone) -> UncertainSam:
    head = BayesianHead(BayesianConfig(logit_scale=True), token_dim=body.token_dim, channels=body.channels)
    return UncertainSam(body, head.requires_grad_(False))


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


@pytest.fixture(scope="module", params=["tiny", "nano"])
def both(request, make_nano):
    """SAM 2's predictor and ours over the same random weights, at 64 pixels."""
    torch.manual_seed(0)
    if request.param == "nano":
        body = make_nano()
        body.sam.forward_image = lambda images: forward_nano(body.sam, images)
        body.sam._prepare_backbone_features = prepare_nano
        body.sam.device = torch.device("cpu")
    else:
        body = build_backbone(BackboneConfig(kind=request.param, image_size=64)).freeze()
    theirs = SAM2ImagePredictor(body.sam)
    theirs._bb_feat_sizes = [(16, 16), (8, 8), (4, 4)]  # written for 1024 pixels
    return theirs, Predictor(with_head(body), device="cpu")


def forward_nano(sam, images):
    """What `SAM2Base` has and nano, which knows no video, has not: the convolutions before the decoder's."""
    out = sam.image_encoder(images)
    maps = list(out["backbone_fpn"])
    maps[:2] = sam.sam_mask_decoder.conv_s0(maps[0]), sam.sam_mask_decoder.conv_s1(maps[1])
    return out | {"backbone_fpn": maps}


def prepare_nano(out):
    maps = out["backbone_fpn"][-3:]
    return out, [each.flatten(2).permute(2, 0, 1) for each in maps], None, None


def assert_same(found, expected):
    masks, scores, logits = found
    np.testing.assert_allclose(scores, expected[1], atol=1e-5)
    np.testing.assert_allclose(logits, expected[2], atol=1e-4)
    assert masks.shape == expected[0].shape
    assert masks.dtype == expected[0].dtype == np.float32
    assert (masks == expected[0]).mean() > 0.9999


PREVIOUS = np.random.default_rng(1).normal(size=(2, 1, 16, 16)).astype(np.float32)
PROMPTS = {
    "a click": dict(point_coords=CLICKS[0, :1], point_labels=LABELS[0, :1]),
    "clicks": dict(point_coords=CLICKS[0], point_labels=LABELS[0]),
    "padding": dict(point_coords=CLICKS[0], point_labels=np.array([1, -1])),
    "box": dict(box=BOXES[0]),
    "box, clicks and mask": dict(point_coords=CLICKS[0], point_labels=LABELS[0], box=BOXES[0], mask_input=PREVIOUS[0]),
    "mask alone": dict(mask_input=PREVIOUS[0]),
    "two objects": dict(point_coords=CLICKS, point_labels=LABELS),
    "two boxes": dict(box=BOXES),
    "one box of a list": dict(box=BOXES[:1]),
    "two of everything": dict(point_coords=CLICKS, point_labels=LABELS, box=BOXES, mask_input=PREVIOUS),
    "shares": dict(point_coords=CLICKS / (100, 40), point_labels=LABELS, normalize_coords=False),
    "share of a box": dict(box=BOXES[0] / (100, 40, 100, 40), normalize_coords=False),
}


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_one_import_replaces_it(both, pictures, prompt, multimask):
    theirs, ours = both
    for predictor in both:
        predictor.set_image(pictures[0])
    expected = theirs.predict(**prompt, multimask_output=multimask)
    answer = ours.predict(**prompt, multimask_output=multimask)
    assert_same(tuple(answer), expected)
    order = np.argsort(-answer.scores, axis=-1, kind="stable")
    assert (np.diff(answer.scores) <= 0).all(), "ours come best first"
    assert (order == np.arange(order.shape[-1])).all()
    full = theirs.predict(**prompt, multimask_output=multimask, return_logits=True)[0]
    masks, *_ = ours.predict(**prompt, multimask_output=multimask, return_logits=True)
    np.testing.assert_allclose(masks, full, atol=1e-4)


def test_arguments_by_position(both, pictures):
    theirs, ours = both
    for predictor in both:
        predictor.set_image(pictures[0])
    positional = (CLICKS[0], LABELS[0], BOXES[0], PREVIOUS[0], False, True, True)
    for found, expected in zip(ours.predict(*positional), theirs.predict(*positional), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_batch_of_ragged_pictures_and_prompts(both, pictures):
    theirs, ours = both
    for predictor in both:
        predictor.set_image_batch(pictures)
    points = [CLICKS, CLICKS[0, :1] / 4, None]
    labels = [LABELS, LABELS[0, :1], None]
    boxes = [None, None, BOXES / 3]
    expected = theirs.predict_batch(points, labels, boxes)
    batch = ours.predict_batch(points, labels, boxes, decomposed=True)
    for rows in zip(zip(*batch, strict=True), zip(*expected, strict=True), strict=True):
        assert_same(*rows)
    for picture, answer, *prompt in zip(pictures, batch.answers, points, labels, boxes, strict=True):
        ours.set_image(picture)
        alone = ours.predict(*prompt, decomposed=True)
        for name, array in vars(alone).items():
            if array is None:
                continue
            np.testing.assert_allclose(getattr(answer, name), array, atol=1e-4, err_msg=name)


def test_the_embedding(both, pictures):
    theirs, ours = both
    for predictor in both:
        predictor.set_image(pictures[0])
    np.testing.assert_allclose(ours.get_image_embedding(), theirs.get_image_embedding(), atol=1e-5)
    ours.set_image_batch(pictures)
    assert ours.get_image_embedding().shape[0] == 3


def test_objects_with_different_numbers_of_points_are_answered_as_if_asked_alone(both, pictures):
    ours = both[1]
    ours.set_image(pictures[0])
    points = [CLICKS[0, :1], CLICKS[1], CLICKS[0]]
    labels = [[1], [1, 1], [1, 0]]
    together = ours.predict(points, labels)
    assert together.masks.shape == (3, 3, 40, 100)
    for number, prompt in enumerate(zip(points, labels, strict=True)):
        alone = ours.predict(*prompt)
        np.testing.assert_allclose(together.logits[number], alone.logits, atol=1e-4)
        np.testing.assert_array_equal(together.tokens[number], alone.tokens)
    looked = ours.predict(points, labels, looks=LooksConfig(looks=["flip"]))
    assert looked.masks.shape == looked.epistemic.shape == (3, 1, 40, 100)


@pytest.mark.parametrize("fallback", [True, False])
def test_a_model_of_the_sam2_package_with_its_fallback(pictures, fallback):
    """`build_sam2` switches on a choice between the single mask and a candidate, which the package's YAML has not."""
    torch.manual_seed(2)
    sam = build_backbone(BackboneConfig(kind="tiny", image_size=64)).freeze().sam
    decoder = sam.sam_mask_decoder
    decoder.dynamic_multimask_via_stability = fallback
    decoder.dynamic_multimask_stability_delta, decoder.dynamic_multimask_stability_thresh = 0.05, 0.98
    theirs, ours = SAM2ImagePredictor(sam), Predictor(sam)
    theirs._bb_feat_sizes = [(16, 16), (8, 8), (4, 4)]
    assert ours.model.head is None
    tokens = set()
    rng = np.random.default_rng(3)
    for predictor in (theirs, ours):
        predictor.set_image(pictures[0])
    for _ in range(6):
        points, labels = rng.random((4, 2)) * (100, 40), rng.integers(0, 2, 4)
        expected = theirs.predict(points, labels, multimask_output=False)
        answer = ours.predict(points, labels, multimask_output=False)
        assert_same(tuple(answer), expected)
        tokens.update(answer.tokens.tolist())
    assert (tokens != {0}) == fallback


def test_embeddings_outlive_the_predictor(both, pictures, tmp_path):
    ours = both[1]
    ours.set_image_batch(pictures)
    file = ours.save_embeddings(tmp_path / "a.safetensors")
    expected = ours.predict_batch(box_batch=[BOXES[0] / 3] * 3)
    other = Predictor(ours.model, device="cpu")
    other.model.encode = None  # nothing is encoded again
    try:
        other.load_embeddings(file)
        found = other.predict_batch(box_batch=[BOXES[0] / 3] * 3)
        with pytest.raises(RuacError, match="cannot be looked at again"):
            other.predict_batch(box_batch=[BOXES[0] / 3] * 3, looks=["flip"])
    finally:
        del other.model.encode
    for one, another in zip(found.answers, expected.answers, strict=True):
        np.testing.assert_allclose(one.logits, another.logits, atol=1e-6)


def test_embeddings_of_another_backbone_are_refused(make_nano, nano, pictures, tmp_path):
    first = Predictor(UncertainSam(nano, None), device="cpu")
    first.set_image(pictures[0])
    file = first.save_embeddings(tmp_path / "a.safetensors")
    altered = make_nano()
    altered.sam.no_mem_embed.data += 1
    second = Predictor(UncertainSam(altered, None), device="cpu")
    with pytest.raises(RuacError, match=r"a\.safetensors: embeddings of another backbone"):
        second.load_embeddings(file)
    with pytest.raises(RuacError, match="no image; call set_image first"):
        second.predict(box=BOXES[0])
    (tmp_path / "b.safetensors").write_text("nothing")
    for name, message in (("b", "not a file of embeddings"), ("c", "embeddings not found")):
        with pytest.raises(RuacError, match=message):
            first.load_embeddings(tmp_path / f"{name}.safetensors")


def test_pictures_are_remembered(nano, pictures, monkeypatch):
    predictor = Predictor(UncertainSam(nano, None), device="cpu", remember=2)
    encoded = []
    encode = predictor.model.encode
    monkeypatch.setattr(predictor.model, "encode", lambda images: encoded.append(len(images)) or encode(images))
    for number in (0, 1, 0, 2, 0, 1):  # 1 was forgotten for 2
        predictor.set_image(pictures[number])
    assert encoded == [1, 1, 1, 1]
    predictor.set_image_batch([pictures[1], pictures[2], pictures[1], pictures[2]])
    assert encoded == [1, 1, 1, 1, 1]


def test_what_cannot_be_asked(nano, pictures):
    predictor = Predictor(UncertainSam(nano, None), device="cpu")
    with pytest.raises(RuacError, match="expected a list of at least one picture"):
        predictor.set_image_batch([])
    with pytest.raises(RuacError, match=r"^image 1: "):
        predictor.set_image_batch([pictures[0], np.zeros(3)])
    with pytest.raises(RuacError, match="no images; call set_image_batch first"):
        predictor.predict_batch(box_batch=[BOXES[0]])
    predictor.set_image_batch(pictures[:2])
    with pytest.raises(RuacError, match="2 images are set; call predict_batch"):
        predictor.predict(box=BOXES[0])
    with pytest.raises(RuacError, match="box_batch: 1 entries, expected 2, one per image"):
        predictor.predict_batch(box_batch=[BOXES[0]])
    with pytest.raises(RuacError, match="no prompt"):
        predictor.predict_batch(box_batch=[BOXES[0] / 5, None])
    predictor.set_image(pictures[0])
    with pytest.raises(RuacError, match="return_logits: "):
        predictor.predict(box=BOXES[0], return_logits=True, correct=True)


def test_the_expected_iou_is_that_of_truths_drawn_from_the_probability(both, pictures):
    ours = both[1]
    ours.set_image(pictures[0])
    answer = ours.predict(CLICKS[0], LABELS[0])
    rng = np.random.default_rng(0)
    for mask, p, expected in zip(answer.masks, answer.probability, answer.expected_iou, strict=True):
        truths = rng.random((400, *p.shape)) < p
        ious = (truths & mask).sum((1, 2)) / (truths | mask).sum((1, 2))
        assert expected == pytest.approx(ious.mean(), abs=4 * ious.std() / 20 + 1e-3)
