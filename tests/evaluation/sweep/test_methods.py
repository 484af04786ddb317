"""References without training as rows of the sweep: same masks and clicks as vanilla, other uncertainty."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit

from ruac.backbone import Backbone, backbone_config, load_backbone
from ruac.base.config import config_from
from ruac.base.errors import RuacError
from ruac.calibration.temperature import Temperature
from ruac.data.augment import normalise, square, to_tensor
from ruac.data.open import open_dataset
from ruac.evaluation import score
from ruac.evaluation.metrics import boundary_f, jaccard
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Scores, answer_image, evaluate_image, objects_of
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.methods import is_vanilla, load_model, mark
from ruac.evaluation.sweep.opened import sweep_key
from ruac.inference.ensemble import Ensemble, EnsembleConfig
from ruac.inference.expected_iou import joint_iou
from ruac.inference.export import export_model, fingerprint
from ruac.inference.model import UncertainSam
from ruac.inference.reliability import Reader, Reliability, reliability_identity, save_reliability
from ruac.inference.second_look import LooksConfig
from ruac.inference.unccorr import UncCorr, corrected
from ruac.uncertainty.temperature import TemperatureConfig, TemperatureHead

PROTOCOL = ProtocolConfig(clicks=2)


@pytest.fixture
def sample(coco_folder):
    return open_dataset(coco_folder)[1]  # three objects


@pytest.fixture
def models(nano):
    return {
        "vanilla": UncertainSam(nano, None),
        "temperature": UncertainSam(nano, None, calibrator=Temperature(temperature=2.5)),
        "jitter": UncertainSam(nano, Ensemble(EnsembleConfig(jitters=3, sigma=0.2))),
        "flip": UncertainSam(nano, Ensemble(EnsembleConfig(flips=["horizontal", "vertical"]))),
    }


@pytest.mark.parametrize(
    "protocol", [PROTOCOL, ProtocolConfig(clicks=2, box=True), ProtocolConfig(clicks=1, multimask=False)]
)
def test_masks_and_clicks_are_vanillas_to_the_last_bit(models, sample, protocol):
    answers = answer_image(models, sample, protocol)
    vanilla = answers.pop("vanilla")
    for answer in answers.values():
        for name in ("masks", "predicted_iou", "points", "labels", "j"):
            np.testing.assert_array_equal(getattr(answer, name), getattr(vanilla, name))
        assert not torch.allclose(answer.probability, vanilla.probability)
        assert all(values.min() >= 0 and values.max() <= 1 for values in answer.uncertainty.values())
    logit = vanilla.probability.double().logit().numpy()
    np.testing.assert_allclose(answers["temperature"].probability.numpy(), expit(logit / 2.5), atol=1e-5)
    assert list(answers["temperature"].uncertainty) == ["total"]
    assert list(answers["jitter"].uncertainty) == list(answers["flip"].uncertainty) == ["total", "mutual_information"]
    assert answers["jitter"].uncertainty["mutual_information"].max() > 1e-4


def test_without_jitter_the_entropy_is_vanillas(models, nano, sample):
    still = UncertainSam(nano, Ensemble(EnsembleConfig(jitters=2, sigma=0)))
    answers = answer_image({"vanilla": models["vanilla"], "still": still}, sample, PROTOCOL)
    ours, vanilla = answers["still"].uncertainty, answers["vanilla"].uncertainty["entropy"]
    torch.testing.assert_close(ours["total"], vanilla, rtol=0, atol=2e-6)
    assert ours["mutual_information"].max() < 2e-6


def test_flips_are_of_the_last_round_with_the_mask_before(models, nano, sample):
    """The plain answer of a fresh `decode` on flipped features, from the recorded clicks of one object."""
    vanilla = answer_image({"vanilla": models["vanilla"]}, sample, PROTOCOL)["vanilla"]
    one = objects_of(sample, slice(0, 1))
    flip = UncertainSam(nano, Ensemble(EnsembleConfig(flips=["horizontal"])))
    asked = []
    decode, answer = nano.decode, None

    class Spy(type(nano)):
        def decode(self, features, prompts):
            asked.append((features, prompts))
            return decode(features, prompts)

    flip.backbone = Spy(nano.sam, name="spy").eval()
    answer = answer_image({"flip": flip}, one, PROTOCOL)["flip"]
    (_, first), (_, last), (turned, mirrored) = asked
    assert first.mask_logits is None
    np.testing.assert_array_equal(answer.points, vanilla.points[:1])
    torch.testing.assert_close(mirrored.points[..., 0], 63 - last.points[..., 0])
    torch.testing.assert_close(mirrored.points[..., 1], last.points[..., 1])
    assert torch.equal(mirrored.mask_logits, last.mask_logits.flip(-1))
    image = normalise(square(to_tensor(sample.image), 64))[None]
    with torch.no_grad():
        assert torch.equal(turned.embedding, nano.encode(image.flip(-1)).embedding)


def test_jitter_depends_on_the_object_and_not_on_its_company(models, sample, monkeypatch):
    jitter = {"jitter": models["jitter"]}
    together = answer_image(jitter, sample, PROTOCOL)["jitter"]
    again = answer_image(models, sample, PROTOCOL)["jitter"]
    assert torch.equal(together.probability, again.probability)
    for n in range(3):
        alone = answer_image(jitter, objects_of(sample, slice(n, n + 1)), PROTOCOL)["jitter"]
        torch.testing.assert_close(alone.probability[0], together.probability[n], rtol=0, atol=1e-4)
    renamed = replace(sample, record=replace(sample.record, id="other"))
    assert not torch.allclose(answer_image(jitter, renamed, PROTOCOL)["jitter"].probability, together.probability)


def test_images_are_encoded_once_per_flip_and_objects_decoded_in_blocks(models, sample, make_nano, monkeypatch):
    monkeypatch.setattr(score, "BLOCK", 2)
    body, calls = make_nano(), {"encode": 0, "decode": []}
    encode, decode = body.encode, body.decode

    def counted_encode(images):
        calls["encode"] += 1
        return encode(images)

    def counted_decode(features, prompts):
        calls["decode"].append(len(prompts.points))
        return decode(features, prompts)

    monkeypatch.setattr(body, "encode", counted_encode)
    monkeypatch.setattr(body, "decode", counted_decode)
    for model in models.values():
        model.backbone = body
    models["all"] = UncertainSam(body, Ensemble(EnsembleConfig(jitters=1, flips=["horizontal"])))
    evaluate_image(models, sample, PROTOCOL, Scores(), domain="d")
    assert calls["encode"] == 1 + 2  # plain, horizontal, vertical
    passes = 2 + 3 + 2 + 2  # clicks, jitter, flip, all
    assert calls["decode"] == [2] * passes + [1] * passes


def test_clicks_can_be_replayed(models, sample):
    vanilla = answer_image({"vanilla": models["vanilla"]}, sample, PROTOCOL)["vanilla"]
    replay = ProtocolConfig(clicks=2, next_click="replay")
    for name in ("jitter", "flip"):
        own, replayed = (
            answer_image({name: models[name]}, sample, protocol, replay=clicks)[name]
            for protocol, clicks in ((PROTOCOL, None), (replay, (vanilla.points, vanilla.labels)))
        )
        assert torch.equal(own.probability, replayed.probability)


class Specked(Backbone):
    """Its masks are the left half of a picture, without doubt, and a speck at the right, in much doubt."""

    def decode(self, features, prompts):
        decoded = super().decode(features, prompts)
        logits = torch.full_like(decoded.logits, 30.0)
        logits[..., 8:], logits[..., 6:9, 11:14] = -0.5, 0.5
        return replace(decoded, logits=logits)


def test_corrected_masks_are_what_is_scored(nano, sample):
    body = Specked(nano.sam, name="specked").eval()
    for head in (None, TemperatureHead(TemperatureConfig(temperature=1.5))):
        plain = UncertainSam(body, head)
        models, scores = {"plain": plain, "unccorr": UncertainSam(plain.backbone, plain.head, [UncCorr()])}, Scores()
        answers = answer_image(models, sample, PROTOCOL)
        before, after = answers["plain"], answers["unccorr"]
        main = next(iter(before.uncertainty.values())).numpy()
        expected = np.stack([corrected(m, u) for m, u in zip(before.masks, main, strict=True)])
        assert before.masks[:, 20, 48].all()
        assert not expected[:, 20, 48].any()
        np.testing.assert_array_equal(after.masks, expected)
        np.testing.assert_array_equal(after.points, before.points)
        assert torch.equal(after.probability, before.probability)
        np.testing.assert_array_equal(after.j[:, 0], before.j[:, 0])
        np.testing.assert_array_equal(after.j[:, 1], jaccard(expected, sample.masks))

        evaluate_image(models, sample, PROTOCOL, scores, domain="d")
        rows = [row for row in scores.rows if row["model"] == "unccorr"]
        assert [row["j"] for row in rows] == list(jaccard(expected, sample.masks))
        assert [row["f"] for row in rows] == list(boundary_f(expected, sample.masks))
        sums = scores.sums["unccorr", next(iter(after.uncertainty)), "image"].compute()
        assert sums["accuracy"] == pytest.approx((expected == sample.masks).mean())
        assert fingerprint(models["unccorr"]) != fingerprint(plain)


def entry(**values):
    made = config_from(ModelConfig, {"name": "row"} | values, "test")
    made.validate()
    return made


def test_entries_of_a_sweep(shelf, tmp_path):
    backbone, out = str(shelf / "backbone.yaml"), str(tmp_path / "temperature")
    vanilla = load_model(entry(backbone=backbone))
    calibrated = UncertainSam(vanilla.backbone, None, calibrator=Temperature(temperature=2.0))
    export_model(calibrated, backbone_config(backbone), out, with_backbone=True)
    assert type(vanilla) is UncertainSam
    assert vanilla.head is None
    temperature = load_model(entry(export=out))
    assert temperature.calibrator.temperature == pytest.approx(2)
    assert (is_vanilla(vanilla), is_vanilla(temperature), mark(temperature)) == (True, False, "")
    jitter = load_model(entry(backbone=backbone, ensemble={"jitters": 4}))
    assert jitter.head.config == EnsembleConfig(jitters=4)
    assert [type(f) for f in load_model(entry(export=str(shelf / "head"), unccorr=True)).filters] == [UncCorr]
    assert load_model(entry(export=str(shelf / "head"))).head.config.posterior == "signed"
    both = load_model(entry(export=out, unccorr=True))
    assert (both.calibrator.kind, [type(f) for f in both.filters]) == ("temperature", [UncCorr])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"export": "x", "temperature": "y"}, "at most one of"),
        ({"backbone": "nano", "temperature": "y", "ensemble": {"jitters": 1}}, "at most one of"),
        ({"backbone": "nano", "unccorr": True, "ensemble": {"jitters": 1}}, "no unccorr="),
        ({"backbone": "nano", "ensemble": {}}, "jitters=, flips="),
        ({"backbone": "nano", "ensemble": {"jitter": 1}}, "did you mean 'ensemble.jitters'"),
        ({"temperature": "y"}, "expected backbone="),
        ({"backbone": "nano", "name": "vanilla", "unccorr": True}, "'vanilla' is for"),
    ],
)
def test_impossible_entries(values, message):
    with pytest.raises(RuacError, match=message):
        entry(**values)


def test_a_temperature_of_another_backbone_is_refused(shelf, tmp_path, nano):
    file = tmp_path / "temperature.json"
    given = entry(backbone=str(shelf / "backbone.yaml"), temperature=str(file))
    with pytest.raises(RuacError, match=r"temperature\.json: temperature file not found"):
        load_model(given)
    file.write_text("{")
    with pytest.raises(RuacError, match=r"temperature\.json: broken JSON"):
        load_model(given)
    for text in ("[]", '{"temperature": 2}'):
        file.write_text(text)
        with pytest.raises(RuacError, match="expected the JSON file of an older temperature fit"):
            load_model(given)
    file.write_text('{"temperature": 2, "backbone": {"sha256": "0", "image_size": 64}}')
    with pytest.raises(RuacError, match="another backbone"):
        load_model(given)
    own = {"sha256": fingerprint(load_backbone(str(shelf / "backbone.yaml")).sam), "image_size": 64}
    file.write_text(json.dumps({"temperature": "hot", "backbone": own}))
    with pytest.raises(RuacError, match="positive number"):
        load_model(given)


def test_looks_keep_the_clicks_of_vanilla_and_change_what_comes_after(nano, sample):
    vanilla = UncertainSam(nano, None)
    looks = ["zoom:1.0", "flip"]  # masks of random weights fill the picture, which a zoom leaves alone
    zoom = UncertainSam(nano, None, looks=LooksConfig(looks=looks))
    keep = UncertainSam(nano, None, looks=LooksConfig(looks=looks, keep_masks=True))
    answers = answer_image({"vanilla": vanilla, "zoom": zoom, "keep": keep}, sample, PROTOCOL)
    for answer in answers.values():
        np.testing.assert_array_equal(answer.points, answers["vanilla"].points)
        np.testing.assert_array_equal(answer.j[:, 0], answers["vanilla"].j[:, 0])
    np.testing.assert_array_equal(answers["keep"].masks, answers["vanilla"].masks)
    np.testing.assert_array_equal(answers["keep"].j, answers["vanilla"].j)
    assert torch.equal(answers["keep"].probability, answers["zoom"].probability)
    np.testing.assert_array_equal(answers["zoom"].j[:, -1], jaccard(answers["zoom"].masks, sample.masks))
    assert not np.array_equal(answers["zoom"].masks, answers["vanilla"].masks)
    assert list(answers["zoom"].uncertainty) == ["total", "mutual_information"]


def test_rows_with_looks(shelf):
    backbone = str(shelf / "backbone.yaml")
    entry = config_from(ModelConfig, {"name": "look", "backbone": backbone, "looks": ["zoom", "flip"]}, "here")
    model = load_model(entry)
    assert model.looks == LooksConfig(looks=["zoom", "flip"])
    assert model.head is None
    beside = ModelConfig("both", export=str(shelf / "head"), looks=["zoom"], keep_masks=True)
    beside.validate()
    assert load_model(beside).head is not None
    assert load_model(beside).looks.keep_masks
    assert load_model(beside).looks.feedback is None
    alone = ModelConfig("alone", backbone=backbone, looks=["zoom"], feedback=False)
    alone.validate()
    assert load_model(alone).looks == LooksConfig(feedback=False)
    own = LooksConfig(looks=["flip"], edge=0.1)
    assert ModelConfig("own", export="e", feedback=False).looks_over(own) == replace(own, feedback=False)
    assert ModelConfig("own", export="e").looks_over(replace(own, feedback=False)) == replace(own, feedback=False)
    assert ModelConfig("own", export="e", feedback=True).looks_over(replace(own, feedback=False)).feedback
    assert ModelConfig("own", export="e", feedback=False).looks_over(None) is None
    keys = {sweep_key(SweepConfig(), {"m": UncertainSam(model.backbone, None, looks=looks)}) for looks in
            (None, LooksConfig(), LooksConfig(keep_masks=True), LooksConfig(looks=["flip"]))}  # fmt: skip
    assert len(keys) == 4
    for values, message in [
        ({"looks": ["zom"]}, "'zom', expected zoom"),
        ({"keep_masks": True}, "keep_masks= with looks= or"),
        ({"feedback": False}, "feedback= with looks= or"),
        ({"looks": ["zoom"], "ensemble": {"jitters": 2}}, "no looks= with ensemble="),
        ({"looks": ["zoom"], "name": "vanilla"}, "SAM 2 as it is"),
    ]:
        with pytest.raises(RuacError, match=message):
            config_from(ModelConfig, {"name": "look", "backbone": backbone} | values, "here")


def test_reliability_is_a_column_of_rows_that_have_a_reader(shelf, tmp_path, sample):
    row = ModelConfig(
        "row", backbone=str(shelf / "backbone.yaml"), looks=["zoom:1.0", "flip"], reliability=str(tmp_path)
    )
    plain = load_model(replace(row, reliability=None))
    file, guess = tmp_path / "reliability.json", Reader({"predicted_iou": 1.0}, 0.0, [0.5], [0.2])
    save_reliability(file, Reliability({"": guess}, reliability_identity(plain)), {})
    with pytest.raises(RuacError, match=r"nothing was fitted for looks \['zoom:1.0', 'flip'\]"):
        load_model(row)
    agreeing = Reader({"agreement": 1.0, "joint_iou": 0.5}, 0.1, [0.5], [0.2])
    save_reliability(file, Reliability({"zoom:1.0,flip": agreeing}, reliability_identity(plain)), {})
    model = load_model(row)
    assert sweep_key(SweepConfig(), {"m": model}) != sweep_key(SweepConfig(), {"m": plain})
    scores = Scores()
    evaluate_image({"vanilla": UncertainSam(model.backbone, None), "row": model}, sample, PROTOCOL, scores, domain="d")
    found = {name: [r.get("reliability") for r in scores.rows if r["model"] == name] for name in ("vanilla", "row")}
    assert found["vanilla"] == [None, None, None]
    answers = answer_image({"vanilla": UncertainSam(model.backbone, None), "row": model}, sample, PROTOCOL)
    first, last = answers["vanilla"].masks, answers["row"].masks
    agreement = [(a & b).sum() / max(1, (a | b).sum()) for a, b in zip(first, last, strict=True)]
    agreement = np.clip(np.where((first | last).any((1, 2)), agreement, 1), 0.005, 0.995)
    joint = joint_iou(last, answers["row"].probability.numpy()).clip(0.005, 0.995)
    logit = 0.1 + np.log(agreement / (1 - agreement)) + 0.5 * np.log(joint / (1 - joint))
    np.testing.assert_allclose(found["row"], expit(logit), rtol=1e-5)
