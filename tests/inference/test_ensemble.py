"""Ensembles of prompts and flips, on stubs whose answers are known."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import decoded_of

from ruac.backbone import Features
from ruac.backbone.prompts import BOX_FIRST, BOX_SECOND, Prompts
from ruac.base.errors import RuacError
from ruac.inference.ensemble import Ensemble, EnsembleConfig, EnsemblePosterior
from ruac.inference.flips import FLIPS, flip_prompts
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import Predictor
from ruac.uncertainty import binary_entropy, decompose, probit_logit, total_uncertainty

SIDE, CELLS = 64, 16


class Stub(torch.nn.Module):
    """Logits: what `answer` makes of features ``[N, 1, 16, 16]``, points and the previous mask; keeps what it is asked.

    The features of an image are the means of its first channel over cells of 4 x 4 pixels.
    """

    image_size, mask_stride, boxes_only = SIDE, 4, False

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, []

    def frame(self, size):
        return SIDE, SIDE

    def encode(self, images):
        return Features(torch.nn.functional.avg_pool2d(images[:, :1], 4), [])

    def decode(self, features, prompts):
        self.asked.append(prompts)
        logits = self.answer(features.embedding, prompts)  # [N, 4, h, w]
        return decoded_of(logits, iou=torch.arange(4.0).repeat(len(logits), 1))


def plane(slope):
    """The object's left half, with logits that a click's x shifts: logit = slope * x on every pixel of token k."""

    def answer(_, prompts):
        x = prompts.points[:, 0, 0]
        shape = torch.ones(4, CELLS, CELLS)
        shape[:, :, CELLS // 2 :] = -1
        return slope * x[:, None, None, None] * shape

    return answer


def prompts_at(*points, labels=None):
    points = torch.tensor(points, dtype=torch.float32)
    return Prompts(points, torch.ones(points.shape[:2], dtype=torch.int64) if labels is None else torch.tensor(labels))


def ask(model, prompts, keys):
    picture = model.encode(torch.randn(1, 3, SIDE, SIDE))
    decoded = model.backbone.decode(picture.gather(torch.zeros(len(keys), dtype=torch.int64)), prompts)
    return model.complete(decoded, lambda flip: picture.flipped[flip] if flip else picture, prompts, keys)


def test_moved_clicks_give_the_mean_over_a_normal_click():
    """E[sigmoid(a x)] for x ~ N(30, s^2): analytic up to the sampling error of 1,000 passes."""
    slope, sigma = 0.05, 0.2
    model = UncertainSam(Stub(plane(slope)), Ensemble(EnsembleConfig(jitters=1000, sigma=sigma)))
    answer = ask(model, prompts_at([[30, 30]]), ["k"])
    size = np.sqrt(SIDE * SIDE / 2)  # half of the picture is positive
    x = np.random.default_rng(0).normal(30, sigma * size, 1_000_000).clip(0, SIDE)
    p = 1 / (1 + np.exp(-slope * x))
    probability = answer.calibrated_logit(torch.tensor([2])).sigmoid()[0, 0]
    left, right = probability[:, :8], probability[:, 8:]
    assert (left - p.mean()).abs().max() < 3 * p.std() / 1000**0.5
    torch.testing.assert_close(right, 1 - left)
    entropy = total_uncertainty(torch.tensor(p).logit(), torch.zeros(len(p))).mean()
    of_mean = binary_entropy(torch.tensor(p.mean())) / np.log(2)
    information = answer.posterior.select(torch.tensor([2])).scores()["mutual_information"]
    assert float(of_mean - entropy) > 0.02
    assert float(information.mean()) == pytest.approx(float(of_mean - entropy), rel=0.1)


@pytest.mark.parametrize("settings", [{"jitters": 5, "sigma": 0.0}, {"flips": ["horizontal", "vertical", "both"]}])
def test_without_a_move_and_on_an_equivariant_model_nothing_changes(settings):
    def answer(embedding, prompts):
        """A bump at the click on the picture's own values: turns with the picture."""
        grid = torch.arange(CELLS) * 4 + 1.5
        x, y = (prompts.points[:, 0, i, None] for i in (0, 1))
        bump = 5 - 0.01 * ((grid - y)[:, :, None].square() + (grid - x)[:, None, :].square())
        logits = bump[:, None] + embedding + 0.1 * prompts.mask_logits
        return logits * torch.arange(1.0, 5)[:, None, None]

    model = UncertainSam(Stub(answer), Ensemble(EnsembleConfig(**settings)))
    prompts = prompts_at([[13, 20]], [[40, 9]])
    prompts.mask_logits = torch.randn(2, 1, CELLS, CELLS)
    answered = ask(model, prompts, ["a", "b"])
    assert len(model.backbone.asked) == 1 + (5 if "jitters" in settings else 3)
    for choice in (torch.tensor([0, 2]), torch.tensor([3, 1])):
        plain = answered.decoded.logits[[0, 1], choice][:, None]
        torch.testing.assert_close(answered.calibrated_logit(choice), plain, rtol=1e-5, atol=1e-5)
        ours = total_uncertainty(*answered.posterior.select(choice).calibrated())
        torch.testing.assert_close(ours, total_uncertainty(plain, torch.zeros_like(plain)), rtol=0, atol=1e-6)
        assert answered.posterior.select(choice).scores()["mutual_information"].max() < 1e-6


def test_an_answer_that_does_not_turn_is_averaged_with_its_mirror_image():
    ramp = torch.arange(CELLS).float().expand(4, CELLS, CELLS) - 3
    model = UncertainSam(
        Stub(lambda embedding, _: ramp.expand(len(embedding), -1, -1, -1)),
        Ensemble(EnsembleConfig(flips=["horizontal"])),
    )
    answered = ask(model, prompts_at([[5, 5]]), ["k"])
    expected = (ramp.sigmoid() + ramp.flip(-1).sigmoid()) / 2
    torch.testing.assert_close(answered.calibrated_logit(torch.tensor([1])).sigmoid()[0], expected[:1])
    assert torch.equal(answered.logits[0], ramp)


def test_jitter_is_a_function_of_the_objects_key_alone():
    config = EnsembleConfig(jitters=3, sigma=0.1)

    def moved(keys, points, config=config):
        model = UncertainSam(Stub(plane(0.1)), Ensemble(config))
        ask(model, prompts_at(*points), keys)
        return torch.stack([p.points for p in model.backbone.asked[1:]])  # [M, N, 1, 2]

    both = moved(["a", "b"], [[[20, 20]], [[30, 40]]])
    turned = moved(["b", "a"], [[[30, 40]], [[20, 20]]])
    torch.testing.assert_close(both, turned[:, [1, 0]], rtol=0, atol=0)
    torch.testing.assert_close(both[:, :1], moved(["a"], [[[20, 20]]]), rtol=0, atol=0)
    assert not torch.equal(moved(["a"], [[[20, 20]]]), moved(["c"], [[[20, 20]]]))
    other = EnsembleConfig(jitters=3, sigma=0.1, seed=1)
    assert not torch.equal(moved(["a"], [[[20, 20]]]), moved(["a"], [[[20, 20]]], other))
    at_the_border = moved(["a", "b"], [[[0, 0]], [[63, 63]]], EnsembleConfig(jitters=50, sigma=1.0))
    assert at_the_border.min() == 0
    assert at_the_border.max() == SIDE


def test_jitter_comes_from_a_hash_that_is_the_same_in_every_process():
    model = UncertainSam(Stub(plane(0.1)), Ensemble(EnsembleConfig(jitters=2, sigma=0.01, seed=5)))
    ask(model, prompts_at([[20, 20], [40, 30]], [[30, 40], [10, 10]]), ["a", "b"])
    for n, key in enumerate((b"5/a", b"5/b")):
        seed = int(hashlib.sha256(key).hexdigest()[:16], 16)
        moves = np.random.default_rng(seed).standard_normal((2, 2, 2)) * 0.01 * np.sqrt(SIDE * SIDE / 2)
        for move, prompts in zip(moves, model.backbone.asked[1:], strict=True):
            expected = model.backbone.asked[0].points[n].numpy() + move
            np.testing.assert_allclose(prompts.points[n].numpy(), expected, rtol=1e-5)


def test_flipped_prompts():
    points = [[[10, 20], [30, 50], [0, 63]], [[1, 2], [3, 4], [5, 6]]]
    labels = [[BOX_FIRST, BOX_SECOND, 1], [1, 0, -1]]
    prompts = prompts_at(*points, labels=labels)
    prompts.mask_logits = torch.randn(2, 1, CELLS, CELLS)
    across = flip_prompts(prompts, "horizontal", (SIDE, SIDE))
    assert across.points.tolist() == [[[33, 20], [53, 50], [63, 63]], [[62, 2], [60, 4], [58, 6]]]
    assert flip_prompts(prompts, "vertical", (SIDE, SIDE)).points[0].tolist() == [[10, 13], [30, 43], [0, 0]]
    assert flip_prompts(prompts, "both", (SIDE, SIDE)).points[0].tolist() == [[33, 13], [53, 43], [63, 0]]
    assert torch.equal(across.mask_logits, prompts.mask_logits.flip(-1))
    for flip in FLIPS:
        twice = flip_prompts(flip_prompts(prompts, flip, (SIDE, SIDE)), flip, (SIDE, SIDE))
        assert torch.equal(twice.points, prompts.points)
        assert torch.equal(twice.labels, prompts.labels)
    assert prompts.points.tolist() == points


def test_the_posterior_reports_the_members():
    members = 8 * torch.randn(6, 2, 4, 5, 5)
    members[:, 0, 0, 0, 0] = torch.tensor([-300.0, -310, -305, -320, -330, -340])  # probabilities that round to 0
    posterior = EnsemblePosterior(mean=members[0], members=members)
    probability = members.double().sigmoid().mean(0)
    torch.testing.assert_close(
        probit_logit(*posterior.calibrated()).sigmoid().double(), probability, rtol=1e-4, atol=1e-30
    )
    assert float(probit_logit(*posterior.calibrated())[0, 0, 0, 0]) == pytest.approx(-300 - np.log(6), abs=0.01)
    torch.testing.assert_close(posterior.variance, members.var(dim=0, unbiased=False))
    information = binary_entropy(probability) - binary_entropy(members.double().sigmoid()).mean(0)
    ours = posterior.scores()["mutual_information"].double()
    torch.testing.assert_close(ours, information / np.log(2), rtol=0, atol=1e-5)
    picked = posterior.select(torch.tensor([3, 1]))
    torch.testing.assert_close(picked.members, torch.stack([members[:, 0, 3:], members[:, 1, 1:2]], dim=1)[:, :, :1])
    assert (decompose(*picked.calibrated())[1] >= 0).all()
    generator = torch.Generator().manual_seed(0)
    drawn = {int((posterior.sample(generator) == members).flatten(1).all(1).nonzero()[0]) for _ in range(60)}
    assert drawn == set(range(6))
    assert posterior.kl() == 0


def test_a_predictor_takes_an_ensemble(nano):
    picture = np.random.default_rng(0).integers(0, 256, (40, 100, 3), np.uint8)
    click = {"point_coords": [[30, 20]], "point_labels": [1]}
    config = EnsembleConfig(jitters=2, sigma=0.3, flips=["horizontal"])
    plain, ensemble = (Predictor(UncertainSam(nano, head), device="cpu") for head in (None, Ensemble(config)))
    for predictor in (plain, ensemble):
        predictor.set_image(picture)
    vanilla, ours = plain.predict(**click), ensemble.predict(**click, decomposed=True)
    for name in ("masks", "scores", "logits"):
        np.testing.assert_array_equal(getattr(vanilla, name), getattr(ours, name))
    assert not np.allclose(vanilla.uncertainty, ours.uncertainty)
    assert ours.epistemic.max() > 0
    np.testing.assert_array_equal(ensemble.predict(**click).uncertainty, ours.uncertainty)


def test_one_pass_is_no_ensemble():
    with pytest.raises(RuacError, match="single decoder pass"):
        Ensemble(EnsembleConfig(jitters=1))(SimpleNamespace())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "jitters=, flips= or both"),
        ({"jitters": -1}, "at least 0"),
        ({"jitters": 1, "sigma": float("nan")}, "at least 0"),
        ({"flips": ["diagonal"]}, "horizontal or vertical or both"),
        ({"flips": ["both", "both"]}, "at most once"),
    ],
)
def test_impossible_configs(settings, message):
    with pytest.raises(RuacError, match=message):
        EnsembleConfig(**settings).validate()


def test_one_kind_of_pass_is_enough():
    EnsembleConfig(jitters=1, sigma=0.0).validate()
    EnsembleConfig(flips=["both"]).validate()
