"""The prompt path of every evaluation, with models whose answers are known."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ruac.backbone.outputs import Features
from ruac.backbone.prompts import BOX_FIRST, BOX_SECOND, OBJECT, PADDING, central_pixel
from ruac.base.errors import RuacError
from ruac.evaluation.protocol import ProtocolConfig, prompt_objects

SIDE, HEIGHT, WIDTH = 64, 32, 96
KEYS = ["picture/1", "picture/2", "picture/3"]


@pytest.fixture
def truth():
    masks = np.zeros((3, HEIGHT, WIDTH), bool)
    masks[0, 4:15, 10:40], masks[1, 10:30, 30:70], masks[2, 2:9, 60:90] = True, True, True
    return masks


@pytest.fixture
def features():
    return Features(torch.zeros(1, 8, 4, 4), [torch.zeros(1, 1, 16, 16), torch.zeros(1, 2, 8, 8)])


class Model:
    """Answers with logits of its own choice and keeps what it was asked."""

    def __init__(self, logits=None, iou=None, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.logits, self.iou, self.asked = logits, iou, []

    def __call__(self, features, prompts):
        self.asked.append(prompts)
        n = len(features.embedding)
        coarse = torch.randn(n, 4, 4, 4, generator=self.generator)  # blobs, with all of noise's variety
        logits = 40 * F.interpolate(coarse, (16, 16), mode="bilinear") if self.logits is None else self.logits
        return SimpleNamespace(logits=logits, iou=self.iou or torch.rand(n, 4, generator=self.generator))


def perfect(truth):
    """Logits that are the truth at every pixel once they are brought to the picture's size."""
    return SimpleNamespace(
        logits=(torch.from_numpy(truth).float() * 2 - 1)[:, None].expand(-1, 4, -1, -1), iou=torch.ones(len(truth), 4)
    )


def rounds(model, features, truth, config=None, keys=KEYS, **options):
    config = config or ProtocolConfig(clicks=3)
    return list(prompt_objects(model, features, truth, config, frame=(SIDE, SIDE), keys=keys[: len(truth)], **options))


def ious(masks, truth):
    return (masks & truth).sum(axis=(1, 2)) / (masks | truth).sum(axis=(1, 2))


def test_clicks_start_at_the_centre_and_go_on_in_the_errors(features, truth):
    model = Model()
    answers = rounds(model, features, truth)
    assert [answer.points.shape for answer in answers] == [(3, 1, 2), (3, 2, 2), (3, 3, 2)]
    np.testing.assert_array_equal(answers[0].points[:, 0], [central_pixel(mask) for mask in truth])
    assert (answers[0].labels == OBJECT).all()
    for before, after in pairwise(answers):
        np.testing.assert_array_equal(after.points[:, :-1], before.points)
        np.testing.assert_array_equal(after.labels[:, :-1], before.labels)
        for n, (x, y) in enumerate(after.points[:, -1].astype(int)):
            assert truth[n, y, x] != before.masks[n, y, x]
            assert after.labels[n, -1] == truth[n, y, x]
    assert {0, 1} == set(answers[-1].labels.flatten())


def test_points_are_scaled_by_either_side(features, truth):
    model = Model()
    answers = rounds(model, features, truth)
    for answer, asked in zip(answers, model.asked, strict=True):
        expected = np.stack([answer.points[..., 0] * SIDE / WIDTH, answer.points[..., 1] * SIDE / HEIGHT], axis=-1)
        np.testing.assert_allclose(asked.points.numpy(), expected, rtol=1e-6)
        assert asked.points.dtype == torch.float32
        assert torch.equal(asked.labels, torch.from_numpy(answer.labels))


def test_answers_are_one_token_of_the_prediction(features, truth):
    for multimask in (True, False):
        for answer in rounds(Model(), features, truth, ProtocolConfig(multimask=multimask)):
            iou = answer.prediction.iou
            expected = iou[:, 1:].argmax(dim=1) + 1 if multimask else torch.zeros(3, dtype=torch.int64)
            assert torch.equal(answer.choice, expected)
            for n, k in enumerate(expected):
                assert torch.equal(answer.logits[n, 0], answer.prediction.logits[n, k])
                assert answer.iou[n] == iou[n, k]
            full = F.interpolate(answer.logits, (HEIGHT, WIDTH), mode="bilinear")[:, 0] > 0
            np.testing.assert_array_equal(answer.masks, full.numpy())


@pytest.mark.parametrize("feedback", [True, False])
def test_feedback_is_the_clamped_answer_before(features, truth, feedback):
    model = Model()
    answers = rounds(model, features, truth, ProtocolConfig(feedback=feedback))
    assert max(answer.logits.abs().max() for answer in answers) > 32
    assert model.asked[0].mask_logits is None
    for answer, asked in zip(answers, model.asked[1:], strict=False):
        if feedback:
            assert torch.equal(asked.mask_logits, answer.logits.clamp(-32, 32))
        else:
            assert asked.mask_logits is None


def test_the_same_again_with_a_real_model(nano, truth):
    with torch.no_grad():
        encoded = nano.encode(torch.randn(1, 3, 64, 64))
        first, again = (rounds(nano.decode, encoded, truth) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.logits, other.logits)
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_array_equal(one.masks, other.masks)


def test_random_first_clicks_depend_on_the_key_alone(features, truth):
    config = ProtocolConfig(first_click="random", clicks=1)

    def clicks(masks, keys, **options):
        (answer,) = rounds(Model(), features, masks, replace(config, **options), keys)
        return [tuple(p) for p in answer.points[:, 0].astype(int)]

    found = clicks(truth, KEYS)
    assert all(truth[n, y, x] for n, (x, y) in enumerate(found))
    assert clicks(truth[::-1], KEYS[::-1]) == found[::-1]
    assert clicks(truth[1:2], KEYS[1:]) == found[1:2]
    assert clicks(truth, ["a", "b", "c"]) != found
    assert clicks(truth, KEYS, seed=1) != found
    assert len(set(clicks(truth[[0] * 3], KEYS))) == 3
    torch.manual_seed(99)
    np.random.seed(99)
    assert clicks(truth, KEYS) == found


def test_random_first_clicks_cover_the_object(features):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3, 5:8], mask[9, 50] = True, True
    config = ProtocolConfig(first_click="random", clicks=1)
    (answer,) = prompt_objects(
        Model(),
        features,
        np.repeat(mask[None], 400, axis=0),
        config,
        frame=(SIDE, SIDE),
        keys=[str(n) for n in range(400)],
    )
    _, counts = np.unique(answer.points[:, 0], axis=0, return_counts=True)
    assert len(counts) == 4
    assert ((counts - 100) ** 2 / 100).sum() < 16.3  # chi-square, 3 degrees: p = 0.001


def test_boxes(features, truth):
    model = Model()
    answers = rounds(model, features, truth, ProtocolConfig(box=True, clicks=2))
    assert answers[0].points.tolist() == [[[10, 4], [40, 15]], [[30, 10], [70, 30]], [[60, 2], [90, 9]]]
    assert (answers[0].labels == [BOX_FIRST, BOX_SECOND]).all()
    expected = torch.tensor([[10 * SIDE / WIDTH, 4 * SIDE / HEIGHT], [40 * SIDE / WIDTH, 15 * SIDE / HEIGHT]])
    torch.testing.assert_close(model.asked[0].points[0], expected)
    assert answers[1].points.shape == (3, 3, 2)
    assert set(answers[1].labels[:, 2]) <= {0, 1}


def test_the_oracle_is_the_best_candidate(features, truth):
    better = 0
    for seed in range(10):
        oracle, predicted = (
            rounds(Model(seed=seed), features, truth, ProtocolConfig(clicks=1, mask_choice=choice))[0]
            for choice in ("oracle", "predicted_iou")
        )
        assert torch.equal(oracle.prediction.logits, predicted.prediction.logits)
        full = F.interpolate(oracle.prediction.logits, (HEIGHT, WIDTH), mode="bilinear").numpy() > 0
        best = np.max([ious(full[:, k], truth) for k in (1, 2, 3)], axis=0)
        np.testing.assert_array_equal(ious(oracle.masks, truth), best)
        assert (ious(predicted.masks, truth) <= best).all()
        better += (ious(predicted.masks, truth) < best).sum()
    assert better > 5


@pytest.mark.parametrize("box", [False, True])
def test_replay_gives_another_model_the_same_prompts(features, truth, box):
    first, second = Model(seed=0), Model(seed=1)
    config = ProtocolConfig(clicks=3, box=box)
    stored = rounds(first, features, truth, config)[-1]
    answers = rounds(
        second, features, truth, replace(config, next_click="replay"), replay=(stored.points, stored.labels)
    )
    assert len(answers) == 3
    for asked, same in zip(first.asked, second.asked, strict=True):
        assert torch.equal(asked.points, same.points)
        assert torch.equal(asked.labels, same.labels)
    own = rounds(Model(seed=1), features, truth, config)[-1]
    assert not np.array_equal(own.points, stored.points)  # its own errors would have led elsewhere


def test_replay_may_stop_earlier(features, truth):
    stored = rounds(Model(), features, truth, ProtocolConfig(clicks=5))[-1]
    config = ProtocolConfig(clicks=2, next_click="replay")
    last = rounds(Model(), features, truth, config, replay=(stored.points, stored.labels))[-1]
    np.testing.assert_array_equal(last.points, stored.points[:, :2])


def test_a_perfect_mask_keeps_its_prompts(features, truth):
    answers = rounds(lambda *_: perfect(truth), features, truth)
    assert len(answers) == 3
    assert all((answer.masks == truth).all() for answer in answers)
    assert (answers[-1].points == answers[0].points).all()  # the one click three times
    assert (answers[-1].labels == OBJECT).all()


def test_a_perfect_mask_of_a_box_gets_padding_and_no_third_corner(features, truth):
    answers = rounds(lambda *_: perfect(truth), features, truth, ProtocolConfig(box=True))
    assert answers[-1].labels.tolist() == [[BOX_FIRST, BOX_SECOND, PADDING, PADDING]] * 3


def test_one_perfect_mask_does_not_stop_the_others(features, truth):
    answer = perfect(truth)
    answer.logits = answer.logits.clone()
    answer.logits[1] = -1
    last = rounds(lambda *_: answer, features, truth)[-1]
    assert (last.points[0] == last.points[0, 0]).all()
    assert (last.points[1] == last.points[1, 0]).all()  # everything is missed: the centre again
    assert ious(last.masks, truth).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first_click": "middle"}, "protocol.first_click: 'middle', expected center or random"),
        ({"next_click": "none"}, "protocol.next_click: 'none', expected own_error or replay"),
        ({"mask_choice": "best"}, "protocol.mask_choice: 'best', expected predicted_iou or oracle"),
        ({"clicks": 0}, "protocol.clicks: 0, expected at least 1"),
    ],
)
def test_impossible_protocols_are_named(values, message):
    with pytest.raises(RuacError) as info:
        ProtocolConfig(**values).validate()
    assert str(info.value) == message


def test_clicks_to_replay_must_be_there_and_wanted(features, truth):
    replay = ProtocolConfig(next_click="replay")
    stored = np.zeros((3, 3, 2)), np.ones((3, 3), int)
    with pytest.raises(RuacError, match="no stored clicks"):
        rounds(Model(), features, truth, replay)
    with pytest.raises(RuacError, match="own_error and stored clicks"):
        rounds(Model(), features, truth, replay=stored)
    with pytest.raises(RuacError, match=r"clicks \[3, 3\], expected 4 of each of 3 objects"):
        rounds(Model(), features, truth, replace(replay, clicks=4), replay=stored)
    with pytest.raises(RuacError, match=r"expected 3 of each of 2 objects"):
        rounds(Model(), features, truth[:2], replay, replay=stored)
