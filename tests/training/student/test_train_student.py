"""A run from the command line: what it writes, that it learns, that it resumes to the last bit, what it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ruac.base.assets import asset_root
from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.cli import main
from ruac.data.classes import ClassFolder
from ruac.training.student.methods import METHODS
from ruac.training.student.models import build_segmenter
from ruac.training.student.run import StudentConfig, train_student
from ruac.training.student.split import split_pictures
from ruac.training.student.validation import evaluate

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def run(settings, out, *more, resume=False):
    return train_student(load_config(StudentConfig, None, [*settings, f"out={out}", *more]), resume=resume)


@pytest.fixture
def pseudo(classed, settings, tmp_path):
    """Pseudo-labels of every picture: the truth, and the disk where there is none."""
    config = load_config(StudentConfig, None, settings)
    data = ClassFolder(classed)
    out = tmp_path / "pseudo"
    shutil.copytree(classed / "labels", out / "labels")
    shutil.copy(classed / "classes.txt", out / "classes.txt")
    Image.fromarray(np.ones((40, 48), np.uint8)).save(out / "labels" / "11.png")
    labelled = [data.files[place] for place in split_pictures(data, config.split).labelled]
    record = {"labelled": labelled, "config": {"filter": "none"}, "model": {}, "thresholds": {}}
    (out / "record.json").write_text(json.dumps(record))
    return f"pseudo_labels={out}"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_both_stages(settings, pseudo, tmp_path, method):
    out = run(settings, tmp_path / "run", pseudo, f"method={method}", "consistency.threshold=0.3")
    result = json.loads((out / "result.json").read_text())
    assert set(result["validation"]) == {"miou", "accuracy", "ece", "p_acc_cert", "p_unc_inacc", "rss", "iou"}
    assert set(result["validation"]["iou"]) == {"background", "round", "square"}
    assert sum(len(files) for files in result["split"].values()) == 12
    assert (out / "labelled.txt").read_text().split() == result["split"]["labelled"]
    assert (result["pseudo_labels"] is None) == (method not in ("pseudo", "conformal_sam"))
    assert result["steps"] == 2 * 5  # ten pictures that are not for validation, two a step


def test_weights_answer_as_the_result_says(settings, classed, tmp_path):
    settings = [entry for entry in settings if "width" not in entry]
    pytest.importorskip("transformers", reason="the extra transformers")
    more = ["model.kind=segformer", "epochs=20", "validate_epochs=0", "rate=0.05", "engine.batch_size=4"]
    out = run(settings, tmp_path / "run", *more, "views.weak.crop=0.9")
    config = load_config(StudentConfig, out / "config.yaml")
    data = ClassFolder(classed)
    model = build_segmenter(config.model, 3)
    model.load_state_dict(load_file(out / "student.safetensors"))
    sums = evaluate(model, data, split_pictures(data, config.split).validation, side=32)
    result = json.loads((out / "result.json").read_text())["validation"]
    assert sums.compute()["miou"] == result["miou"]
    assert result["miou"] > 0.5  # three colours are not hard


@pytest.mark.parametrize("method", ["conformal_sam"])
def test_a_resumed_run_is_the_uninterrupted_one(settings, pseudo, tmp_path, method, monkeypatch):
    """Stopped in stage I by an error, as a kill would; what is later than the checkpoint is done again."""
    from ruac.training.student.task import StudentTask

    more = [pseudo, f"method={method}", "then=unimatch_v2", "consistency.threshold=0.3", "engine.save_every=2"]
    whole = run(settings, tmp_path / "whole", *more)
    forward, calls = StudentTask.forward, []

    def interrupted(self, batch, progress):
        calls.append(progress)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, batch, progress)

    monkeypatch.setattr(StudentTask, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path / "cut", *more)
    assert not (tmp_path / "cut" / "result.json").exists()
    monkeypatch.setattr(StudentTask, "forward", forward)
    cut = run(settings, tmp_path / "cut", *more, resume=True)
    ours, theirs = (torch.load(out / "last.pt", weights_only=True) for out in (whole, cut))
    for part in ours["modules"]:
        assert all(torch.equal(v, theirs["modules"][part][k]) for k, v in ours["modules"][part].items())
    one, other = (json.loads((out / "result.json").read_text())["validation"] for out in (whole, cut))
    assert one == other


def test_a_finished_run_has_nothing_left_to_do(settings, tmp_path):
    out = run(settings, tmp_path / "run")
    before = (out / "result.json").read_text()
    run(settings, tmp_path / "run", resume=True)
    assert json.loads((out / "result.json").read_text())["validation"] == json.loads(before)["validation"]


def test_configs_name_their_method():
    paths = sorted((asset_root() / "configs" / "student").glob("*.yaml"))
    found = {}
    for path in paths:
        config = load_config(StudentConfig, path, ["source=x", "pseudo_labels=y"])
        found[path.stem] = config.plan()
        assert config.method == path.stem or path.stem in ("small", "conformal_unimatch")
    assert set(METHODS) < set(found)
    assert found["conformal_unimatch"].kinds == {"pseudo", "unimatch_v2"}
    assert (found["conformal_sam"].epochs, found["conformal_sam"].stages.start) == (80, 60)  # the paper's, on VOC


@pytest.mark.parametrize("method", ["supervised", "conformal_sam"])  # whose labels are made from the lists
def test_lists_alone(method, settings, tmp_path, capsys):
    main(["train-student", method, *settings, f"out={tmp_path}/lists", "--split"])
    assert capsys.readouterr().out.startswith(f"lists: {tmp_path}/lists: 4 labelled, 6 unlabelled, 2 validation")
    assert {p.name for p in (tmp_path / "lists").iterdir()} == {"labelled.txt", "unlabelled.txt", "validation.txt"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["method=pseudo"], "pseudo_labels: missing; method=pseudo needs a folder of ruac pseudo-label"),
        (["method=conformal"], "method: 'conformal', expected supervised, pseudo"),
        (["then=pseudo"], "then: 'pseudo', expected self_training"),
        (["method=self_training", "stages.start=3"], "stages.start: 3, expected at most epochs=2"),
        (["engine.steps=7"], "engine.steps: follows from epochs"),
        (["side=40"], "side: 40, expected a multiple of 32"),
        (["split.fraction=0"], "split.fraction: 0.0, expected a share in (0, 1]"),
        (["split.fraction=0.001"], "split.fraction: 0.001 of 9 pictures is none"),
        (["stages.shares=1"], "did you mean 'stages.share'"),
        (["engine.schedule=polly"], "expected cosine, linear, poly or constant"),
        (["engine.optimizer=adam"], "engine.optimizer: 'adam', expected adamw or sgd"),
        (["method=self_training", "split.unlabelled=LABELLED"], "is in two of labelled"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(settings, classed, tmp_path, capsys, more, message):
    listed = tmp_path / "listed.txt"
    listed.write_text("".join(f"{name}\n" for name in ClassFolder(classed).files))
    more = [entry.replace("LABELLED", str(listed)) for entry in more]
    with pytest.raises(SystemExit) as stopped:
        main(["train-student", "supervised", *settings, f"out={tmp_path}/run", *more])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["labelled", "validation", "unlabelled"])
def test_broken_labels_are_said_before_the_first_step_where_they_are_needed(settings, classed, tmp_path, part):
    root = tmp_path / "data"
    shutil.copytree(classed, root)
    settings = [*(entry for entry in settings if "source" not in entry), f"source={root}", "epochs=1"]
    config = load_config(StudentConfig, None, settings)
    place = getattr(split_pictures(ClassFolder(root), config.split), part)[0]
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(root / "labels" / f"{place:02}.png")
    if part == "unlabelled":
        run(settings, tmp_path / "run", "method=fixmatch")
        return
    with pytest.raises(RuacError, match=rf"{place:02}\.png: found label 7, expected 0 to 2 or 255"):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
