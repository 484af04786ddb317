"""One image: who shares clicks, what is counted, what is computed only once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import with_head
from torch.nn.functional import interpolate

from ruac.backbone.prompts import Prompts, central_pixel
from ruac.data.augment import normalise, square, to_tensor
from ruac.data.open import open_dataset
from ruac.evaluation import score
from ruac.evaluation.metrics import ReliabilitySums, boundary_f, jaccard, object_band
from ruac.evaluation.metrics.band_counts import pooled_metrics
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Scores, answer_image, evaluate_image, objects_of
from ruac.inference.ensemble import Ensemble, EnsembleConfig
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import LooksConfig
from ruac.uncertainty import BayesianConfig
from ruac.uncertainty.look_reader import LookReader, LookReaderConfig


@pytest.fixture
def models(nano):
    return {
        "vanilla": UncertainSam(nano, None),
        "signed": with_head(nano, noise=0.05),
        "own": with_head(nano, BayesianConfig(posterior="nonnegative"), noise=0.05),
    }


@pytest.fixture
def sample(coco_folder):
    return open_dataset(coco_folder)[1]  # three objects


def rows_of(scores, model, *columns):
    return [tuple(row[c] for c in columns) for row in scores.rows if row["model"] == model]


def test_vanilla_and_signed_have_the_same_masks_and_clicks(models, sample):
    scores = Scores()
    evaluate_image(models, sample, ProtocolConfig(), scores, domain="d")
    same = ("image", "object", "j", "f", "predicted_iou", "area", "points", "labels", "band_error")
    assert rows_of(scores, "vanilla", *same) == rows_of(scores, "signed", *same)
    assert rows_of(scores, "vanilla", "band_uncertainty") != rows_of(scores, "signed", "band_uncertainty")
    assert len(scores.rows) == 9
    # and the order of the models does not matter
    turned = Scores()
    evaluate_image(dict(reversed(models.items())), sample, ProtocolConfig(), turned, domain="d")
    for name in models:
        assert rows_of(turned, name, *same) == rows_of(scores, name, *same)


def test_a_nonnegative_head_is_corrected_on_its_own_masks(models, sample):
    answers = answer_image(models, sample, ProtocolConfig(clicks=3))
    assert not np.array_equal(answers["own"].masks, answers["vanilla"].masks)
    np.testing.assert_array_equal(answers["own"].points[:, 0], answers["vanilla"].points[:, 0])
    assert not np.array_equal(answers["own"].points, answers["vanilla"].points)
    alone = answer_image({"own": models["own"]}, sample, ProtocolConfig(clicks=3))["own"]
    np.testing.assert_array_equal(alone.points, answers["own"].points)
    np.testing.assert_array_equal(alone.masks, answers["own"].masks)
    assert torch.equal(alone.probability, answers["own"].probability)


def test_an_answer_is_what_the_model_says_at_its_clicks(models, sample, nano):
    """A brute-force prediction from the recorded clicks, one object and one round at a time."""
    answers = answer_image(models, sample, ProtocolConfig(clicks=2))
    height, width = sample.masks.shape[1:]
    image = normalise(square(to_tensor(sample.image), 64))[None]
    scale = torch.tensor([64 / width, 64 / height])
    for name, answer in answers.items():
        for n, truth in enumerate(sample.masks):
            previous = None
            for taken in (1, 2):
                points = torch.tensor(answer.points[n, :taken], dtype=torch.float32)
                labels = torch.tensor(answer.labels[n, :taken], dtype=torch.int64)
                prompts = Prompts((points * scale)[None], labels[None], previous)
                with torch.no_grad():
                    prediction = models[name].decode(nano.encode(image), prompts)
                best = int(prediction.iou[0, 1:].argmax()) + 1
                previous = prediction.logits[:, best : best + 1].clamp(-32, 32)
            np.testing.assert_array_equal(answer.points[n, 0], central_pixel(truth))
            logit = interpolate(prediction.logits[:, best : best + 1], (height, width), mode="bilinear")
            assert np.mean((logit[0, 0] > 0).numpy() != answer.masks[n]) < 0.01
            assert answer.predicted_iou[n] == pytest.approx(float(prediction.iou[0, best]), abs=1e-5)
            if name == "vanilla":
                torch.testing.assert_close(answer.probability[n], logit[0, 0].sigmoid(), rtol=0, atol=1e-4)


def test_sums_and_rows_equal_a_brute_force_count(models, sample):
    scores = Scores()
    evaluate_image(models, sample, ProtocolConfig(), scores, domain="d")
    answers, band = answer_image(models, sample, ProtocolConfig()), object_band(sample.masks)
    expected = {("vanilla", "entropy"), ("vanilla", "iou"), ("signed", "total"), ("own", "total")}
    assert set(scores.sums) == {(*key, region) for key in expected for region in ("image", "band")}
    for (name, kind, region), sums in scores.sums.items():
        answer, where = answers[name], band if region == "band" else np.ones_like(band)
        p, u = answer.probability.numpy(), answer.uncertainty[kind].numpy()
        brute = ReliabilitySums()
        for n in range(len(sample.masks)):
            maps = {"probability": p[n], "uncertainty": u[n], "target": sample.masks[n], "prediction": answer.masks[n]}
            brute.update(**maps, region=where[n])
        for part, values in sums.to_arrays().items():
            np.testing.assert_array_equal(values, brute.to_arrays()[part])
        wrong = answer.masks != sample.masks
        metrics = sums.compute()
        assert metrics["accuracy"] == pytest.approx(1 - wrong[where].mean())
        assert metrics["mean_uncertainty"] == pytest.approx(u[where].mean(), abs=1e-6)
        assert metrics["brier"] == pytest.approx(((p - sample.masks) ** 2)[where].mean(), abs=1e-6)
    for name, answer in answers.items():
        j, f = jaccard(answer.masks, sample.masks), boundary_f(answer.masks, sample.masks)
        assert rows_of(scores, name, "j", "f") == list(zip(j, f, strict=True))
        for n, (error,) in enumerate(rows_of(scores, name, "band_error")):
            assert error == pytest.approx((answer.masks[n] != sample.masks[n])[band[n]].mean())


def test_uncertainty_is_the_entropy_of_the_probability(models, sample):
    for answer in answer_image(models, sample, ProtocolConfig(clicks=1)).values():
        p = answer.probability.double()
        entropy = -(torch.special.xlogy(p, p) + torch.special.xlogy(1 - p, 1 - p)) / np.log(2)
        torch.testing.assert_close(next(iter(answer.uncertainty.values())).double(), entropy, rtol=0, atol=1e-4)


def test_every_backbone_encodes_an_image_once(models, sample, make_nano, monkeypatch):
    monkeypatch.setattr(score, "BLOCK", 2)  # three objects take two rounds of decoding
    other = make_nano(32)
    models |= {"other": UncertainSam(other, None), "other_signed": with_head(other, noise=0.05)}
    counts, decoded = {}, {}
    for body in {id(m.backbone): m.backbone for m in models.values()}.values():
        for name, calls in (("encode", counts), ("decode", decoded)):
            monkeypatch.setattr(body, name, counting(getattr(body, name), calls, body.image_size))
    evaluate_image(models, sample, ProtocolConfig(clicks=3), Scores(), domain="d")
    assert counts == {64: 1, 32: 1}
    assert decoded == {64: 2 * 2 * 3, 32: 2 * 3}  # blocks x sources of masks x clicks


def test_models_of_one_backbone_share_what_it_says_of_a_further_look(models, sample, nano, monkeypatch):
    looks = LooksConfig(looks=["zoom", "flip"], largest=1.0, margin=1.0, pad=0.0)
    models = {name: UncertainSam(nano, each.head, looks=looks) for name, each in models.items()}
    models["kept"] = UncertainSam(nano, models["signed"].head, looks=replace(looks, keep_masks=True))
    models["jitter"] = UncertainSam(nano, Ensemble(EnsembleConfig(jitters=2)), looks=looks)
    alone = {name: answer_image({name: each}, sample, ProtocolConfig(clicks=1))[name] for name, each in models.items()}
    calls = {}
    monkeypatch.setattr(nano, "decode", counting(nano.decode, calls, "decode"))
    together = answer_image(models, sample, ProtocolConfig(clicks=1))
    # two sources of masks and one more pass in which the head of its own asks; both looks of three who do not share
    # (own, jitter, and the first of the others), and the moved prompts of the ensemble, of each of its three answers
    assert calls["decode"] == 2 + 3 * 2 + 3 * 2
    for name, answer in together.items():
        torch.testing.assert_close(answer.probability, alone[name].probability, rtol=0, atol=0)
        assert np.array_equal(answer.masks, alone[name].masks)
        assert np.array_equal(answer.j, alone[name].j)
        for score_name, values in answer.uncertainty.items():
            torch.testing.assert_close(values, alone[name].uncertainty[score_name], rtol=0, atol=0)


def test_counts_of_kept_masks_rank_errors_as_their_uncertainty_does(sample, nano):
    looks = LooksConfig(looks=["flip"], keep_masks=True)
    reader = LookReader(LookReaderConfig(hidden=8, look="flip"))
    with torch.no_grad():
        reader.network[-1].bias[1] = -0.4  # contradicts much of the masks
    scores = Scores()
    models = {"kept": UncertainSam(nano, None, looks=looks, reader=reader)}
    evaluate_image(models, sample, ProtocolConfig(clicks=1), scores, domain="d", regions=("band",))
    counts = np.array([row["band_counts"] for row in scores.rows]).sum(0).reshape(2, -1)
    pooled = pooled_metrics(counts)
    assert pooled["auroc"] == pytest.approx(scores.sums[("kept", "total", "band")].compute()["auroc"], abs=0.02)


def counting(function, calls, key):
    def counted(*args):
        calls[key] = calls.get(key, 0) + 1
        return function(*args)

    return counted


def test_a_shared_run_does_not_ask_the_head_before_the_last_click(models, sample):
    calls = []
    signed = models["signed"]
    signed.head.register_forward_hook(lambda *_: calls.append(1))
    answer_image({"signed": signed, "vanilla": models["vanilla"]}, sample, ProtocolConfig(clicks=3))
    assert len(calls) == 1


def test_blocks_are_smaller_for_large_images_on_a_cpu(make_nano):
    def ends(count, *sides):
        backbones = [make_nano(64) for _ in sides]
        for backbone, side in zip(backbones, sides, strict=True):
            backbone.sam.image_size, backbone.channels = side, 32
        return [block.stop for block in score.blocks(count, *backbones)]

    assert ends(10, 64) == [8, 16]
    assert ends(7, 1024) == ends(7, 64, 1024) == [3, 6, 9]  # 8 MiB per object, of which four would be too much
    assert ends(2, 8192) == [1, 2]
    assert ends(0, 64) == []
    stops = [[b.stop for b in score.blocks(8, make_nano(64), pixels=n)] for n in (1 << 24, 50_000_000, 10**9)]
    assert stops == [[8], [2, 4, 6, 8], list(range(1, 9))]  # maps of a large picture are few at a time


def test_blocks_of_objects_give_what_all_at_once_gives(models, sample, monkeypatch):
    whole, parts = Scores(), Scores()
    evaluate_image(models, sample, ProtocolConfig(clicks=2), whole, domain="d")
    monkeypatch.setattr(score, "BLOCK", 1)
    evaluate_image(models, sample, ProtocolConfig(clicks=2), parts, domain="d")
    for name in models:
        ours, theirs = (np.array(rows_of(s, name, "j", "f", "predicted_iou")) for s in (whole, parts))
        np.testing.assert_allclose(ours, theirs, atol=0.02)
        assert rows_of(whole, name, "object", "labels") == rows_of(parts, name, "object", "labels")
    for key, sums in whole.sums.items():
        assert sums.count == parts.sums[key].count


def test_objects_of_keeps_image_ids_and_masks_together(sample):
    part = objects_of(sample, slice(1, 3))
    assert part.record.object_ids == sample.record.object_ids[1:3]
    assert part.record.id == sample.record.id
    np.testing.assert_array_equal(part.masks, sample.masks[1:3])


def test_one_region_alone(models, sample):
    both, band = Scores(), Scores()
    evaluate_image(models, sample, ProtocolConfig(clicks=1), both, domain="d")
    evaluate_image(models, sample, ProtocolConfig(clicks=1), band, domain="d", regions=("band",))
    assert {region for *_, region in band.sums} == {"band"}
    for key, sums in band.sums.items():
        np.testing.assert_array_equal(sums.uncertainty, both.sums[key].uncertainty)
