"""The entry scripts, each in a process of its own: once through the main job, then what users get wrong."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from builders import export_with_backbone_beside, save_backbone, with_head
from PIL import Image

from ruac.base.errors import run_tool
from ruac.data.open import open_dataset

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRAIN = {
    "train_split": "train",
    "validation_split": "val",
    "corrections": 1,
    "data": {"objects": 2},
    "engine": {"steps": 4, "batch_size": 2, "cpu": True, "log_every": 1, "validate_every": 4, "panel_every": 4},
    "validation": {"images": 1, "clicks": 1},
}


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def script(name):
    return ROOT / "tools" / f"{name}.py"


def start(name, *arguments):
    """Run a tool as a user does."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(script(name)), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)


def succeed(name, *arguments):
    done = start(name, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def call(name, *arguments):
    """Run a tool in this process, which spares its imports."""
    spec = importlib.util.spec_from_file_location(f"tool_{name}", script(name))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run_tool(module.main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, nano):
    folder = tmp_path_factory.mktemp("shelf")
    backbone = save_backbone(nano, folder)
    (folder / "train.yaml").write_text(yaml.safe_dump(TRAIN | {"backbone": str(folder / "backbone.yaml")}))
    (folder / "sweep.yaml").write_text(
        yaml.safe_dump({"cpu": True, "panels": 1, "limit": 2, "protocol": {"clicks": 1}})
    )
    export_with_backbone_beside(with_head(nano), backbone, folder / "export")
    (folder / "empty.yaml").write_text("{}\n")
    return folder


def test_train_export_sweep_predict(shelf, coco_folder, tmp_path, capsys):
    run, export, sweep = tmp_path / "run", tmp_path / "export", tmp_path / "sweep"
    out = succeed("train", shelf / "train.yaml", f"source={coco_folder}", f"out={run}")
    assert f"checkpoint: {run / 'last.pt'}" in out
    assert "step 4 loss" in out
    call("train", shelf / "train.yaml", "--resume", f"source={coco_folder}", f"out={run}", "engine.steps=5")
    resumed = capsys.readouterr().out
    assert "step 5 loss" in resumed
    assert "step 4 loss" not in resumed

    assert f"exported: {export}" in succeed("export", run, export, "--head-only")
    own = shelf / "backbone.yaml"  # of no name that an export may open
    models = f"models=[{{name: ruac, export: {export}, backbone: {own}}}]"
    out = succeed("sweep", shelf / "sweep.yaml", models, f"domains=[{coco_folder}]", f"out={sweep}")
    assert f"report:  {sweep / 'report.html'}" in out
    assert "ruac" in (sweep / "report.html").read_text()
    assert (sweep / "objects.parquet").is_file()

    image, overlay = coco_folder / "images" / "0.png", tmp_path / "overlay.png"
    y, x = open_dataset(coco_folder)[0].masks[0].nonzero()
    extra = ("--backbone", own, "--out", overlay)
    assert "predicted IoU" in succeed("predict", image, "--point", x[0], y[0], "--model", export, *extra)
    with Image.open(overlay) as picture:
        picture.load()

    again = start("train", shelf / "train.yaml", f"source={coco_folder}", f"out={run}")
    assert again.returncode == 2
    (line,) = again.stderr.strip().splitlines()[-1:]
    assert line.startswith(f"error: {run}: already holds a run")
    assert "Traceback" not in again.stderr


def test_pretrain(coco_folder, shelf, tmp_path, capsys):
    engine = ("engine.steps=1", "engine.batch_size=1", "engine.cpu=true")
    settings = ("image_size=64", "corrections=0", "validation_images=1", *engine)
    call("pretrain", shelf / "empty.yaml", f"source={coco_folder}", f"out={tmp_path / 'run'}", *settings)
    assert (tmp_path / "run" / "last.pt").is_file()
    assert "validation j_1" in capsys.readouterr().out


def test_quickstart_refuses_several_processes_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as stopped:
        call("quickstart", f"out={tmp_path / 'out'}")
    assert stopped.value.code == 2
    assert "error: quickstart runs in one process; use ruac train and ruac sweep" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def wrong_key(shelf, data, out):
    return (
        "train",
        shelf / "train.yaml",
        f"source={data}",
        f"out={out}",
        "engine.stepz=3",
    ), "did you mean 'engine.steps'"


def missing_source(shelf, data, out):
    return ("train", shelf / "train.yaml", f"source={out / 'nowhere'}", f"out={out}"), "nowhere: folder not found"


def no_source(shelf, data, out):
    return ("train", shelf / "train.yaml", f"out={out}"), "source"


def missing_run(shelf, data, out):
    return ("export", out / "nowhere", out / "export"), "nowhere/last.pt: not found"


def missing_domain(shelf, data, out):
    models = f"models=[{{name: a, backbone: {shelf / 'backbone.yaml'}}}]"
    return (
        "sweep",
        shelf / "sweep.yaml",
        models,
        f"domains=[{out / 'nowhere'}]",
        f"out={out}",
    ), "nowhere: domain folder"


def model_of_nothing(shelf, data, out):
    return (
        "sweep",
        shelf / "sweep.yaml",
        "models=[{name: a}]",
        f"domains=[{data}]",
        f"out={out}",
    ), "model 'a': expected"


def broken_image(shelf, data, out):
    (out / "broken.png").write_bytes((data / "images" / "0.png").read_bytes()[:500])
    return ("predict", out / "broken.png", "--point", 3, 3, "--model", shelf / "export"), "broken.png: cannot be read"


def broken_training_image(shelf, data, out):
    folder = spoil(data, out)
    return ("train", shelf / "train.yaml", f"source={folder}", f"out={out / 'run'}", "validation_split=null"), ".png: "


def broken_domain_image(shelf, data, out):
    models = f"models=[{{name: a, backbone: {shelf / 'backbone.yaml'}}}]"
    domains, out = f"domains=[{spoil(data, out)}]", f"out={out / 'sweep'}"
    return ("sweep", shelf / "sweep.yaml", models, domains, out), ".png: cannot be read"


def spoil(data, out):
    shutil.copytree(data, out / "spoilt")
    for path in (out / "spoilt" / "images").iterdir():
        path.write_bytes(path.read_bytes()[:300])
    return out / "spoilt"


def unwritable_overlay(shelf, data, out):
    (out / "file").write_text("")
    image = data / "images" / "0.png"
    arguments = ("--point", 3, 3, "--model", shelf / "export", "--out", out / "file" / "overlay.png")
    return ("predict", image, *arguments), "cannot be written"


def unwritable_out(shelf, data, out):
    (out / "file").write_text("")
    return ("train", shelf / "train.yaml", f"source={data}", f"out={out / 'file' / 'run'}"), "cannot be written"


def nothing_to_resume(shelf, data, out):
    return ("train", shelf / "train.yaml", "--resume", f"source={data}", f"out={out}"), "nothing to resume"


def wrong_pretraining_key(shelf, data, out):
    return ("pretrain", shelf / "empty.yaml", f"source={data}", f"out={out}", "rates=1"), "did you mean 'rate'"


@pytest.mark.parametrize(
    "mistake",
    [
        *(wrong_key, missing_source, no_source, missing_run, missing_domain, model_of_nothing, broken_image),
        *(broken_training_image, broken_domain_image, unwritable_out, unwritable_overlay, nothing_to_resume),
        wrong_pretraining_key,
    ],
)
def test_mistakes_end_with_one_line_and_status_2(shelf, coco_folder, tmp_path, capsys, mistake):
    arguments, expected = mistake(shelf, coco_folder, tmp_path)
    with pytest.raises(SystemExit) as stopped:
        call(*arguments)
    assert stopped.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert expected in errors[0]


def test_the_readme_counts_the_training_configs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {line.split("/")[2].split(".")[0] for line in text.splitlines() if line.startswith("| `configs/train/")}
    more = len({path.stem for path in (ROOT / "configs" / "train").glob("*.yaml")} - named)
    assert f"[{more} more](configs/train/README.md)" in text
