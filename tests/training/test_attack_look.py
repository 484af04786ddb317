"""Attack as a look: what it changes, its norm, its control, and that no export holds it."""

import numpy as np
import pandas as pd
import pytest
import torch
from builders import save_backbone

from ruac.backbone.prompts import OBJECT, Prompts
from ruac.base.config import save_config
from ruac.base.errors import RuacError
from ruac.data.augment import prepare
from ruac.inference.look_mean import look_again
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import LooksConfig, Question
from ruac.studies.experiments.attack_look import AttackLookConfig, run_attack_look
from ruac.training.adversarial import AdversarialTask, TrainConfig
from ruac.training.attack import AttackConfig
from ruac.training.attack_look import AttackLook, load_attack_looks
from ruac.training.engine import LAST, save_checkpoint

SIDE = 64


@pytest.fixture
def shelf(tmp_path, nano):
    save_backbone(nano, tmp_path)
    return tmp_path


def make_run(shelf, nano, name="run", **attack):
    config = TrainConfig(source="x", backbone=str(shelf / "backbone.yaml"), attack=AttackConfig(**attack))
    task = AdversarialTask(nano, config, None)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in task.attacker.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    (shelf / name).mkdir()
    save_config(config, shelf / name / "config.yaml")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    save_checkpoint(shelf / name / LAST, task, optimizer, {"step": 1})
    return shelf / name


def asked(model, objects=2):
    """A picture of 48 x 72 pixels, and the first answer to clicks on it with masks that are not empty."""
    image = np.random.default_rng(0).integers(40, 220, (48, 72, 3)).astype(np.uint8)
    points = 64 * torch.rand(objects, 1, 2, generator=torch.Generator().manual_seed(1))
    prompts = Prompts(points, torch.full((objects, 1), OBJECT))
    with torch.no_grad():
        prediction = model.decode(model.encode(prepare(image, SIDE)).expand(objects), prompts)
    masks = np.zeros((objects, 48, 72), bool)
    masks[0, 5:30, 10:40] = True
    return Question(image, prompts, prediction, torch.ones(objects, dtype=torch.int64), masks)


def scene(model, question):
    image = prepare(question.image, SIDE)
    masks = torch.zeros(1, 2, SIDE, SIDE)
    masks[0, 0, 8:40, 10:40] = 1
    with torch.no_grad():
        return image, model.backbone.encode(image), masks


def test_a_perturbation_that_changes_nothing_changes_no_answer(nano):
    model = UncertainSam(nano, None)
    question = asked(model)
    config = LooksConfig(looks=[], feedback=False)
    choice = question.prediction.iou[:, 1:].argmax(1) + 1
    question = Question(question.image, question.prompts, question.prediction, choice, question.masks)
    with torch.no_grad():
        plain = look_again(model.looking(config), config, question)
        looked = look_again(model.looking(config, [lambda image, features, masks: image]), config, question)
    assert plain.looks.tolist() == [0, 0]
    assert looked.looks.tolist() == [1, 1]
    assert torch.equal(looked.maps.probability, plain.maps.probability)
    torch.testing.assert_close(looked.maps.total, plain.maps.total, atol=1e-5, rtol=0)
    assert looked.maps.own["mutual_information"].abs().max() < 1e-5


def test_what_is_given_is_the_predicted_masks_at_the_model_s_size(nano):
    model, seen = UncertainSam(nano, None), []
    question, config = asked(model), LooksConfig(looks=[])

    def perturb(image, features, masks):
        seen.append((image, features, masks))
        return -image

    with torch.no_grad():
        looked = look_again(model.looking(config, [perturb]), config, question)
        ((image, features, masks),) = seen
        assert torch.equal(image, prepare(question.image, SIDE))
        assert torch.equal(features.embedding, nano.encode(image).embedding)
    assert masks.shape == (1, 2, SIDE, SIDE)
    expected = question.masks.mean((1, 2))
    torch.testing.assert_close(masks[0].mean((1, 2)), torch.tensor(expected).float(), atol=0.02, rtol=0)
    assert looked.maps.own["mutual_information"].max() > 0


@pytest.mark.parametrize("attack", [{}, {"use_degradations": True}, {"use_degradations": True, "use_style": False}])
def test_the_control_has_the_attack_s_norm_and_both_repeat(shelf, nano, attack):
    run = make_run(shelf, nano, **attack)
    look, control = load_attack_looks(run, str(shelf / "backbone.yaml"))
    model = UncertainSam(nano, None)
    image, features, masks = scene(model, asked(model))
    state = torch.get_rng_state()
    attacked, drawn = look(image, features, masks), control(image, features, masks)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(attacked, look(image, features, masks))
    assert torch.equal(drawn, control(image, features, masks))
    norm = (attacked - image).norm()
    assert norm > 0.1
    torch.testing.assert_close((drawn - image).norm(), norm)
    assert not torch.allclose(drawn, attacked)


def test_attackers_come_by_an_explicit_path_and_stay_out_of_the_weights(shelf, nano):
    spec = str(shelf / "backbone.yaml")
    look, _ = load_attack_looks(make_run(shelf, nano), spec)
    assert isinstance(look, AttackLook)
    assert look.attacker.deformation is None
    model = UncertainSam(nano, None)
    assert model.looking(LooksConfig(looks=[]), [look]).state_dict().keys() == model.state_dict().keys()
    with pytest.raises(RuacError, match="only move things"):
        load_attack_looks(make_run(shelf, nano, "warp", use_style=False), spec)
    with pytest.raises(RuacError, match=r"last\.pt: not found"):
        load_attack_looks(shelf / "nowhere", spec)


def test_the_experiment_writes_a_row_per_model_and_domain(shelf, nano, coco_folder, fresh_accelerator):
    config = AttackLookConfig(
        run=str(make_run(shelf, nano, use_degradations=True)),
        domains=[str(coco_folder)],
        backbone=str(shelf / "backbone.yaml"),
        images=2,
        out=str(shelf / "out"),
        cpu=True,
    )
    table = pd.read_csv(run_attack_look(config) / "attack_look.csv").set_index("model")
    assert list(table.index) == ["vanilla", "attack", "random", "zoom", "zoom and attack", "zoom and random"]
    assert (table.j == table.j["vanilla"]).all()  # masks are kept
    assert table.auroc.nunique() > 1
    assert np.isfinite(table[["auroc", "aurc", "ece"]]).all(axis=None)
