"""A folder of pictures: what is written, what is left out and why, and that a killed run goes on where it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import with_head
from PIL import Image
from pycocotools import mask as rle

from ruac.base.errors import RuacError
from ruac.cli import main
from ruac.inference.automatic import AutomaticConfig, AutomaticMasks
from ruac.inference.folder import INDEX, FolderQuestion, answer_picture, picture_names, predict_folder
from ruac.inference.predictor import Predictor
from ruac.inference.prompts_file import ObjectPrompt

GRID = AutomaticConfig(points_per_side=2, min_reliability=0.1, max_overlap=0.99, min_area=4)
BOX = ObjectPrompt(box=(5.0, 6.0, 40.0, 30.0), kind="shape")
CLICKS = ObjectPrompt(points=((20.0, 18.0), (50.0, 40.0)), labels=(1, 0))
BOTH = ObjectPrompt(box=(5.0, 6.0, 40.0, 30.0), points=((20.0, 18.0),), labels=(1,))


@pytest.fixture(scope="module")
def predictor(nano):
    return Predictor(with_head(nano, noise=0.3), device="cpu")


@pytest.fixture
def pictures(coco_folder, tmp_path):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "sub/a.png", "sub/b.png")):
        (folder / name).write_bytes((coco_folder / "images" / f"{number}.png").read_bytes())
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_prompts_of_all_kinds_are_those_of_the_predictor(predictor, pictures, tmp_path):
    prompts = {"a.png": [BOX, CLICKS, BOTH, BOX], "sub/b.png": [CLICKS]}
    run = predict_folder(predictor, pictures, tmp_path / "out", FolderQuestion(prompts), progress=False)
    assert (run.answered, run.unprompted, run.failed) == (["a.png", "sub/b.png"], ["sub/a.png"], {})
    content = json.loads((tmp_path / "out" / "a.png.json").read_text())
    assert [entry["class"] for entry in content["objects"]] == ["shape", "object", "object", "shape"]
    predictor.set_image(pictures / "a.png")
    for entry, prompt in zip(content["objects"], prompts["a.png"], strict=True):
        answer = predictor.predict(prompt.points or None, prompt.labels or None, prompt.box)
        assert (rle.decode(entry["segmentation"]) == answer.masks[0]).all()
        assert entry["score"] == pytest.approx(answer.scores[0], abs=1e-6)
        assert entry["expected_iou"] == pytest.approx(answer.expected_iou[0], abs=1e-5)
        assert entry["prompt"] == prompt.entry()
    assert not (tmp_path / "out" / "sub" / "a.png.json").exists()
    listed = json.loads((tmp_path / "out" / INDEX).read_text())
    assert [entry["answer"] for entry in listed["pictures"]] == ["a.png.json", "sub/b.png.json"]
    assert listed["without_prompt"] == ["sub/a.png"]


def test_automatic_masks_are_those_of_the_generator(predictor, pictures):
    image = np.asarray(Image.open(pictures / "a.png").convert("RGB"))
    found = AutomaticMasks(predictor, GRID).generate(image)
    assert len(found) > 1
    answer = answer_picture(predictor, image, None, FolderQuestion(automatic=GRID))
    for entry, expected in zip(answer.objects, found, strict=True):
        assert (rle.decode(entry["segmentation"]) == expected["segmentation"]).all()
        assert entry["reliability"] == pytest.approx(expected["reliability"], abs=1e-5)
        assert entry["mean_uncertainty"] == pytest.approx(expected["mean_uncertainty"], abs=1e-5)


def test_a_finished_picture_is_known_by_content_and_question(predictor, pictures, tmp_path):
    out, prompts = tmp_path / "out", {"a.png": [BOX], "sub/a.png": [BOX], "sub/b.png": [BOX]}

    def answered(**changes):
        return predict_folder(predictor, pictures, out, FolderQuestion(prompts, **changes), progress=False).answered

    assert answered() == list(prompts)
    before = contents(out)
    assert answered() == []
    assert contents(out) == before
    first, second = ((pictures / name).read_bytes() for name in ("a.png", "sub/a.png"))
    (pictures / "a.png").write_bytes(second)  # names change places
    (pictures / "sub/a.png").write_bytes(first)
    assert answered() == ["a.png", "sub/a.png"]
    assert contents(out)["a.png.mask.png"] == before["sub/a.png.mask.png"]
    prompts["sub/b.png"] = [BOTH]
    assert answered() == ["sub/b.png"]
    assert answered(looks=["flip"]) == list(prompts)
    (out / "a.png.mask.png").unlink()
    assert answered(looks=["flip"]) == ["a.png"]


def test_what_cannot_be_answered_is_listed_and_mended_later(predictor, pictures, tmp_path):
    out, whole = tmp_path / "out", (pictures / "sub/a.png").read_bytes()
    (pictures / "sub/a.png").write_bytes(whole[:200])
    (pictures / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (pictures / "notes.txt").write_text("")
    far = ObjectPrompt(points=((1000.0, 3.0),), labels=(1,))
    question = FolderQuestion({"a.png": [BOX], "sub/a.png": [BOX], "sub/b.png": [BOX, far], "gone.jpg": [BOX]})
    run = predict_folder(predictor, pictures, out, question, progress=False)
    assert run.answered == ["a.png"]
    assert run.other == ["notes.txt"]
    assert list(run.failed) == ["gone.jpg", "sub/a.png", "sub/b.png"]
    assert "outside the 64x48 picture" in run.failed["sub/b.png"]
    listed = json.loads((out / INDEX).read_text())
    assert {entry["file"]: entry["reason"] for entry in listed["failed"]} == run.failed
    (pictures / "sub/a.png").write_bytes(whole)
    again = predict_folder(predictor, pictures, out, question, progress=False)
    assert (again.answered, again.kept) == (["sub/a.png"], ["a.png"])
    (pictures / "a.png").write_bytes(b"")  # its answer must not outlive it
    predict_folder(predictor, pictures, out, question, progress=False)
    assert not list(out.glob("a.png*"))


def test_answers_among_the_pictures_are_no_pictures(predictor, pictures):
    question = FolderQuestion(automatic=GRID)
    for _ in range(2):
        run = predict_folder(predictor, pictures, pictures / "answers", question, progress=False)
        assert len(run.answered + run.kept) == 3
        assert not run.other
    with pytest.raises(RuacError, match="no picture found"):
        picture_names(pictures / "answers", beside=pictures)


KILLED = """
import os, signal, sys
from pathlib import Path
from builders import with_head
from ruac.backbone import BackboneConfig, build_backbone
from ruac.inference.folder import FolderQuestion, picture_names, predict_folder
from ruac.inference.predictor import Predictor
from ruac.inference.prompts_file import ObjectPrompt
import torch
torch.set_num_threads(1)
torch.manual_seed(1)
predictor = Predictor(with_head(build_backbone(BackboneConfig(image_size=64)).freeze()), device="cpu")
pictures, out = map(Path, sys.argv[1:])
objects = [ObjectPrompt(points=((20.0, y),), labels=(1,)) for y in (10.0, 30.0)]
question = FolderQuestion({name: objects for name in picture_names(pictures)[0]})
run = lambda place: predict_folder(predictor, pictures, out / place, question, progress=False)
run("whole")
replace, renamed = os.replace, 0
def fatal(at, before):
    def counted(*paths):
        global renamed
        renamed += 1
        if before and renamed == at:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)
        if renamed == at:
            os.kill(os.getpid(), signal.SIGKILL)
    os.replace = counted
for at in (1, 4, 6, 9, 13):
    for before in (True, False):
        child = os.fork()
        if not child:
            fatal(at, before)
            run(f"{at} {before}")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
        files = [path.name for path in (out / f"{at} {before}").rglob("*") if path.is_file()]
        print(at, before, len(files), any(name.endswith(".tmp") for name in files), len(run(f"{at} {before}").kept))
"""


def test_a_killed_run_started_again_gives_the_same_folder(pictures, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parents[1])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(pictures), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {line[3] for line in lines if line[1] == "True"} == {"True"}  # killed while something was half-written
    assert len({line[4] for line in lines}) > 2  # with none, some or all pictures finished
    whole = contents(out / "whole")
    assert len(whole) == 13  # four files for each picture, and the list
    assert len(lines) == 10
    for at, before, *_ in lines:
        assert contents(out / f"{at} {before}") == whole


def test_the_verb(shelf, pictures, tmp_path, capsys):
    (pictures / "sub/b.png").write_bytes(b"no picture")
    (tmp_path / "prompts.json").write_text(json.dumps({"a.png": [{"box": [5, 6, 40, 30]}], "sub/b.png": [BOX.entry()]}))
    words = ["predict", str(pictures), "--model", str(shelf / "head"), "--save", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--prompts", str(tmp_path / "prompts.json")])
    assert stopped.value.code == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("1 pictures answered, 0 finished before")
    assert "left out, without a prompt: sub/a.png" in out
    assert f"failed: {pictures / 'sub/b.png'}: cannot be read as an image" in err
    (pictures / "sub/b.png").unlink()
    main([*words, "--automatic", "points_per_side=2", "min_reliability=0.1"])
    assert capsys.readouterr().out.startswith("2 pictures answered")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected --save DIR with either"),
        (["--automatic"], "expected --save DIR with either"),
        (["--save", "out", "--automatic", "point_per_side=2"], "did you mean 'points_per_side'"),
        (["--save", "out", "--automatic", "--point", "3", "3"], "no clicks, box or --out"),
        (["--save", "out", "--prompts", "nowhere.json"], "nowhere.json not found"),
    ],
)
def test_mistakes_of_the_verb(pictures, words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(pictures), *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
