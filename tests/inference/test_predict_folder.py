"""A folder of pictures: what is written, what is left out and why, and that a killed run goes on where it was."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from builders import with_head
from killing import KILLS, killed_at_random
from PIL import Image
from pycocotools import mask as rle

from ruac.base.errors import RuacError
from ruac.cli import main
from ruac.inference.automatic import AutomaticConfig, AutomaticMasks
from ruac.inference.folder import FolderQuestion, answer_picture, picture_names, predict_folder
from ruac.inference.predictor import Predictor
from ruac.inference.prompts_file import ObjectPrompt
from ruac.inference.save import INDEX

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


def test_automatic_masks_are_looked_at_again(predictor, pictures):
    """Whichever of a click's candidates would be kept without looks: with them it is the one that looks return."""
    image = np.asarray(Image.open(pictures / "a.png").convert("RGB"))
    every = replace(GRID, max_overlap=1.0)
    objects = answer_picture(predictor, image, None, FolderQuestion(automatic=every, looks=["flip"])).objects
    assert [entry["id"] for entry in objects] == list(range(1, len(objects) + 1))
    reliability = [entry["reliability"] for entry in objects]
    assert len(objects) > 1
    assert reliability == sorted(reliability, reverse=True)
    for entry in objects:
        answer = predictor.predict(entry["prompt"]["points"], [1], looks=["flip"])
        np.testing.assert_array_equal(rle.decode(entry["segmentation"]) > 0, answer.masks[0])
        assert entry["reliability"] == pytest.approx(float(answer.trust[0]), abs=1e-5)


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


def killed(at, before, run):
    """Run in a process of its own that is killed at its rename number `at`, before or right after it."""
    replace, renamed = os.replace, 0

    def fatal(*paths):
        nonlocal renamed
        renamed += 1
        if before and renamed == at:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)
        if renamed == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def body():
        os.replace = fatal
        run()

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join(60)
    return process.exitcode


def test_a_killed_run_started_again_gives_the_same_folder(predictor, pictures, tmp_path):
    objects = [ObjectPrompt(points=((20.0, y),), labels=(1,)) for y in (10.0, 30.0)]
    question = FolderQuestion({name: objects for name in picture_names(pictures)[0]})

    def run(out):
        return predict_folder(predictor, pictures, out, question, progress=False)

    run(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    assert len(whole) == 13  # four files for each of three pictures, and the list
    kept = set()
    for at in (1, 4, 6, 9, 13):
        for before in (True, False):
            out = tmp_path / f"{at} {before}"
            assert killed(at, before, lambda out=out: run(out)) == -signal.SIGKILL
            left = [name for name in contents(out) if name.endswith(".tmp")]
            assert len(left) == before  # what was being written
            assert ((out / INDEX).exists()) == (at == 13 and not before)
            kept.add(len(run(out).kept))
            assert contents(out) == whole
    assert kept == {0, 1, 2, 3}


@pytest.mark.slow
@pytest.mark.timeout(240 + 120 * KILLS)
def test_killed_at_random_moments(predictor, pictures, tmp_path):
    question = FolderQuestion({name: [BOX, CLICKS] for name in picture_names(pictures)[0]})
    predict_folder(predictor, pictures, tmp_path / "whole", question, progress=False)
    whole = contents(tmp_path / "whole")

    def check(out):
        assert contents(out) == whole

    killed_at_random(
        lambda out: predict_folder(predictor, pictures, out, question, progress=False),
        check,
        tmp_path / "parts",
        seed=5,
    )


def test_two_runs_do_not_share_a_folder(predictor, pictures, tmp_path, monkeypatch):
    def again(*arguments):
        predict_folder(predictor, pictures, tmp_path / "out", FolderQuestion({"a.png": [BOX]}), progress=False)

    monkeypatch.setattr("ruac.inference.folder.answer_picture", again)
    with pytest.raises(RuacError, match="another run is at work here"):
        again()


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
        (["--save", "out", "--prompts", "nowhere.json"], "nowhere.json: not found"),
    ],
)
def test_mistakes_of_the_verb(pictures, words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(pictures), *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
