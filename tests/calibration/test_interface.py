"""Fit, apply, save, load: the same for every kind, and none of them moves a mask."""

import copy

import pytest
import torch

from ruac.base.errors import RuacError
from ruac.calibration import KINDS, Answers, Evidence, KindSettings, Origin, build_calibrator, load_calibrator
from ruac.calibration.answer import AnswerConfig
from ruac.calibration.binning import BinningConfig
from ruac.calibration.clustered import ClusteredConfig
from ruac.calibration.local import LocalConfig
from ruac.calibration.temperature import Temperature

SETTINGS = KindSettings(
    clustered=ClusteredConfig(2), local=LocalConfig(steps=30), answer=AnswerConfig(hidden=4, steps=30, batch=256)
)


@pytest.fixture
def fitted(pictures):
    def make(kind: str):
        answers = pictures()
        calibrator = build_calibrator(kind, SETTINGS)
        calibrator.fit(answers)
        return calibrator, answers

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_comes_back(fitted, kind, tmp_path):
    calibrator, (one, *_) = fitted(kind)
    calibrator.origin = Origin("source", "abc", 64)
    loaded = load_calibrator(calibrator.save(tmp_path / "c.safetensors"), model="abc", image_size=64)
    assert (loaded.kind, loaded.config, loaded.origin) == (kind, calibrator.config, calibrator.origin)
    before, after = calibrator.apply(one.logits, one.evidence), loaded.apply(one.logits, one.evidence)
    assert torch.equal(before, after)
    assert not torch.allclose(before, one.logits, atol=1e-2)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_no_mask_moves(fitted, kind):
    calibrator, answers = fitted(kind)
    assert calibrator.keeps_masks
    for one in answers:
        for scale in (1e-6, 1.0, 1e3):
            logits = scale * one.logits
            logits[0, 0, 0, :2] = 0.0
            assert torch.equal(calibrator.apply(logits, one.evidence) > 0, logits > 0)


@pytest.mark.parametrize("kind", ["isotonic", "histogram", "beta"])
def test_references_move_masks_where_they_are_allowed_to(pixels, kind):
    """Of pixels that are more often object than their logit says, many of negative logit are called object."""
    answers = [pixels(count=50_000, offset=2.0)]
    free = build_calibrator(kind, KindSettings(binning=BinningConfig(keep_masks=False)))
    held = build_calibrator(kind)
    for calibrator in (free, held):
        calibrator.fit(answers)
    moved = free.apply(answers[0].logits) > 0
    assert not free.keeps_masks
    assert (moved != (answers[0].logits > 0)).float().mean() > 0.05
    assert torch.equal(held.apply(answers[0].logits) > 0, answers[0].logits > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_fitting_again_gives_the_same(fitted, kind):
    torch.manual_seed(5)
    first, answers = fitted(kind)
    again = build_calibrator(kind, SETTINGS)
    again.fit(answers)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_lowers_the_loss_on_other_pictures(fitted, pictures, loss, kind):
    calibrator, _ = fitted(kind)
    others = pictures(count=20)
    identity = Temperature()
    assert loss(calibrator, others) < loss(identity, others) - 0.01


def test_probabilities_and_broken_numbers_are_refused():
    calibrator, logits = Temperature(), torch.randn(200)
    with pytest.raises(RuacError, match="which are probabilities; expected logits"):
        calibrator.apply(logits.sigmoid())
    with pytest.raises(RuacError, match="which are probabilities; expected logits"):
        Answers.of(logits.sigmoid(), logits > 0)
    for bad in (float("nan"), float("inf")):
        broken = logits.clone()
        broken[7] = bad
        with pytest.raises(RuacError, match=rf"logits: {bad} at \[7\], expected finite"):
            calibrator.apply(broken)
    with pytest.raises(RuacError, match="expected floating point"):
        calibrator.apply(torch.ones(3, dtype=torch.int64))
    with pytest.raises(RuacError, match="expected one shape"):
        Answers.of(logits, logits[:5] > 0)
    with pytest.raises(RuacError, match="0 and 1 only"):
        Answers.of(logits, logits)
    assert torch.equal(calibrator.apply(torch.full((200,), 0.5)), torch.full((200,), 0.5))  # a blank map is no mistake


def test_arrays_are_as_good_as_tensors():
    logits = torch.randn(50)
    assert torch.equal(Temperature(temperature=2.0).apply(logits.numpy()), logits / 2)


@pytest.mark.parametrize("kind", [kind for kind, cls in KINDS.items() if cls.reads or kind == "local"])
def test_evidence_that_is_missing_is_named(fitted, kind):
    calibrator, _ = fitted(kind)
    with pytest.raises(RuacError, match=f"{kind} calibration reads '(image|feature|tokens|clicks)', which these"):
        calibrator.apply(torch.randn(2, 1, 4, 4), Evidence())


def test_another_model_or_resolution_is_refused(tmp_path):
    calibrator = Temperature(temperature=2.0)
    calibrator.origin = Origin("source", "f" * 64, 128)
    path = calibrator.save(tmp_path / "t.safetensors")
    with pytest.raises(RuacError, match=r"t\.safetensors: fitted for image_size 128, expected 256"):
        load_calibrator(path, model="f" * 64, image_size=256)
    with pytest.raises(RuacError, match=r"fitted for model f{12}\.\.\., expected 0{12}\.\.\."):
        load_calibrator(path, model="0" * 64, image_size=128)
    assert load_calibrator(path).temperature == pytest.approx(2)  # nothing is known of what it is for


def test_files_that_are_none(tmp_path, fitted):
    path = tmp_path / "c.safetensors"
    with pytest.raises(RuacError, match="not found; expected the file of a calibrator"):
        load_calibrator(path)
    path.write_bytes(b"nothing")
    with pytest.raises(RuacError, match="cannot be read as a calibrator"):
        load_calibrator(path)
    Temperature().save(path)
    with pytest.raises(RuacError, match="of kind 'temperature', expected 'clicks'"):
        KINDS["clicks"].load(path)
    odd = copy.deepcopy(fitted("local")[0])
    odd.config = LocalConfig(kernel=3)
    with pytest.raises(RuacError, match="does not fit its config"):
        load_calibrator(odd.save(path))


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(RuacError, match=r"unknown 'temprature', did you mean 'temperature'\?"):
        build_calibrator("temprature")


def test_torchs_own_apply_still_visits_modules():
    visited = []
    torch.nn.Sequential(Temperature(), torch.nn.Linear(1, 1)).apply(lambda module: visited.append(type(module)))
    assert visited == [Temperature, torch.nn.Linear, torch.nn.Sequential]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ClusteredConfig(0), "clusters: 0"),
        (BinningConfig(bins=15), "even number"),
        (LocalConfig(reads="nothing"), "both or image or logits"),
        (LocalConfig(kernel=4), "expected odd"),
        (AnswerConfig(steps=0), "steps: 0"),
        (Origin("somewhere"), "expected source, oracle or all"),
    ],
)
def test_impossible_settings(config, message):
    with pytest.raises(RuacError, match=message):
        config.validate()
