"""The queue: nothing finished is done again, nothing broken stops the rest, nothing runs twice at once."""

import fcntl
import shutil
from pathlib import Path

import pytest

from ruac.base.errors import RuacError
from ruac.studies.reproduce.batches import Batches
from ruac.studies.reproduce.plan import RowConfig
from ruac.studies.reproduce.queue import run_plan, start_process, status, tool


def swept(scripts, number):
    """Names of the models in the given call of sweep."""
    calls = [given for script, _, given in scripts.calls if script == "sweep"]
    return [entry.split('"')[0] for entry in calls[number]["models"].split('"name": "')[1:]]


def files(plan):
    inside = (path for path in Path(plan.out).rglob("*") if path.is_file() and "logs" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in inside if path.parent != Path(plan.out)}


def test_a_queue_does_everything_once(plan, scripts):
    assert run_plan(plan, start=scripts) == []
    assert scripts.names("train") == ["bayes-0", "ruac-0", "ruac-1"]
    assert swept(scripts, 0) == ["vanilla", "bayes-0", "ruac-0", "ruac-1"]
    assert swept(scripts, 1) == ["vanilla", "ruac-0", "ruac-1"]
    replay = scripts.calls[-1][2]
    assert replay["protocol.next_click"] == '"replay"'
    assert replay["replay"] == f'"{plan.out}/sweeps/own/0:vanilla"'
    exports = [places for script, places, _ in scripts.calls if script == "export"]
    assert all(places[-1] == "--head-only" for places in exports)
    before, count = files(plan), len(scripts.calls)
    assert run_plan(plan, start=scripts) == []
    assert len(scripts.calls) == count
    assert files(plan) == before


def test_a_tuned_backbone_is_exported(plan, scripts):
    plan.rows[1].overrides += ["decoder_rate=1e-6"]
    run_plan(plan, only=["bayes"], start=scripts)
    ((places, _),) = (call[1:] for call in scripts.calls if call[0] == "export")
    assert "--head-only" not in places


def test_a_sweep_with_images_that_could_not_be_read_is_not_done(plan, scripts):
    """They are named once a queue, and tried again by the next, until they can be read."""
    scripts.unreadable = [{"domain": "d", "image": "a", "path": "d/a.png", "error": "cut short"}]
    where = Path(plan.out) / "sweeps"
    expected = [f"sweep {name}: {where / name / '0'}: 1 images could not be read" for name in ("own", "replay")]
    for _ in range(2):
        scripts.calls = []
        assert run_plan(plan, start=scripts) == expected
        assert scripts.names("sweep") == ["0", "0"]
    assert ["1 batches lack images" in line for line in status(plan) if line.startswith("sweep")] == [True, True]
    scripts.unreadable, scripts.calls = [], []
    assert run_plan(plan, start=scripts) == []
    assert scripts.names("sweep") == ["0", "0"]
    scripts.calls = []
    assert run_plan(plan, start=scripts) == []
    assert not scripts.calls


def test_fits_wait_for_their_training_and_are_made_once(plan, scripts):
    plan.rows += [
        RowConfig("ruac_fitted", of="ruac", seeds=[1], fit="local_temperature", fit_overrides=["images=9"]),
        RowConfig("vanilla_fitted", fit="local_temperature"),
        RowConfig("temperature", fit="temperature"),
    ]
    plan.validate()
    assert [line for line in status(plan) if line.startswith("fit")] == [
        "fit ruac_fitted-1: to be fitted (local_temperature)",
        "fit vanilla_fitted: to be fitted (local_temperature)",
        "fit temperature: to be fitted (temperature)",
    ]
    assert run_plan(plan, start=scripts) == []
    assert swept(scripts, 0)[-3:] == ["ruac_fitted-1", "vanilla_fitted", "temperature"]
    given = next(given for script, _, given in scripts.calls if script == "fit_local_temperature")
    assert given["export"] == f'"{plan.out}/runs/ruac-1/export"'
    assert given["images"] == "9"
    order = [script for script, *_ in scripts.calls]
    assert order.index("fit_local_temperature") > max(n for n, script in enumerate(order) if script == "export")
    scripts.calls = []
    assert run_plan(plan, start=scripts) == []
    assert not scripts.calls


def test_a_fit_to_what_is_not_trained_is_said(plan, scripts):
    plan.rows += [RowConfig("fitted", of="bayes", fit="local_temperature")]
    scripts.broken = {"bayes-0"}
    failures = run_plan(plan, only=["fitted"], start=scripts)
    assert any("fit fitted-0: bayes-0, which it is fitted to, is not trained" in line for line in failures)


def test_a_broken_run_is_reported_and_the_rest_goes_on(plan, scripts, capsys):
    scripts.broken = {"ruac-0"}
    (failure,) = run_plan(plan, start=scripts)
    log = Path(plan.out) / "logs" / "ruac-0.log"
    assert failure == f"train ruac-0: exit status 2: error: the loss is not finite ({log})"
    assert scripts.names("export") == ["bayes-0", "ruac-1"]
    assert swept(scripts, 0) == ["vanilla", "bayes-0", "ruac-1"]
    assert "sweep own: without ruac-0, not ready yet" in capsys.readouterr().out

    scripts.broken, scripts.calls = set(), []  # mended: resumed, and swept in a batch of its own
    assert run_plan(plan, start=scripts) == []
    ((places, _),) = (call[1:] for call in scripts.calls if call[0] == "train")
    assert "--resume" in places
    assert scripts.names("train") == ["ruac-0"]
    assert swept(scripts, 0) == swept(scripts, 1) == ["vanilla", "ruac-0"]


def test_words_of_an_earlier_attempt_are_not_repeated(plan, scripts, monkeypatch):
    scripts.broken = {"bayes-0"}
    assert "not finite" in run_plan(plan, only=["bayes"], start=scripts)[0]
    monkeypatch.setattr(scripts, "train", lambda *_: 1)
    assert "exit status 1: train starts" in run_plan(plan, only=["bayes"], start=scripts)[0]


def test_a_killed_sweep_continues_with_the_models_it_had(plan, scripts):
    folder = Path(plan.out) / "sweeps" / "own" / "0"
    scripts.killed = {str(folder)}
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, only=["bayes"], start=scripts)
    scripts.killed, scripts.calls = set(), []
    assert run_plan(plan, start=scripts) == []
    assert swept(scripts, 0) == ["vanilla", "bayes-0"]
    assert swept(scripts, 1) == ["vanilla", "ruac-0", "ruac-1"]


def test_a_begun_sweep_of_other_settings_is_refused(plan, scripts):
    scripts.killed = {str(Path(plan.out) / "sweeps" / "own" / "0")}
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, start=scripts)
    plan.domains = ["others"]
    failures = run_plan(plan, start=scripts)
    assert "own/0: begun with another 'vanilla' or other settings; delete this folder" in failures[0]
    assert "sweep replay: vanilla is in no finished batch of own" in failures[1]


def test_what_was_trained_again_is_swept_again(plan, scripts):
    run_plan(plan, start=scripts)
    shutil.rmtree(plan.runs()[0].folder)
    scripts.calls = []
    scripts.export = lambda arguments, *_: write_export(Path(arguments[1]), "other weights")
    run_plan(plan, start=scripts)
    assert scripts.names("train") == ["bayes-0"]
    assert scripts.names("sweep") == ["1"]
    assert swept(scripts, 0) == ["vanilla", "bayes-0"]
    assert Batches(plan, plan.sweeps[0]).done()["bayes-0"].name == "1"


def write_export(export, weights):
    export.mkdir()
    (export / "model.safetensors").write_text(weights)
    (export / "config.json").write_text("{}")
    return 0


def test_large_sweeps_are_split(plan, scripts):
    plan.models_per_sweep = 2
    run_plan(plan, start=scripts)
    assert [swept(scripts, n) for n in (0, 1)] == [["vanilla", "bayes-0", "ruac-0"], ["vanilla", "ruac-1"]]


def test_only_some_rows(plan, scripts):
    run_plan(plan, only=["vanilla", "bayes"], start=scripts)
    assert scripts.names("train") == ["bayes-0"]
    assert swept(scripts, 0) == ["vanilla", "bayes-0"]
    with pytest.raises(RuacError, match="--only: unknown name 'byes'; did you mean 'bayes'"):
        run_plan(plan, only=["byes"], start=scripts)


def test_a_row_that_sweeps_another_again_has_it_trained(plan, scripts):
    plan.rows.append(RowConfig("corrected", of="bayes", model={"unccorr": True}))
    run_plan(plan, only=["corrected"], start=scripts)
    assert scripts.names("train") == ["bayes-0"]
    assert swept(scripts, 0) == ["vanilla", "corrected-0"]


def test_a_temperature_is_waited_for(plan, scripts, tmp_path):
    plan.rows = [plan.rows[0], RowConfig("scaled", model={"temperature": str(tmp_path / "t.json")})]
    plan.sweeps = plan.sweeps[:1]
    run_plan(plan, start=scripts)
    assert swept(scripts, 0) == ["vanilla"]
    for number, fitted in enumerate(("2.0", "3.0")):  # fitted again, swept again
        (tmp_path / "t.json").write_text(fitted)
        run_plan(plan, start=scripts)
        assert swept(scripts, number + 1) == ["vanilla", "scaled"]


def test_status_says_what_is_finished(plan, scripts, capsys):
    scripts.broken = {"ruac-1"}
    run_plan(plan, only=["ruac"], start=scripts)
    assert [line.partition(" (")[0] for line in status(plan)] == [
        "train bayes-0: to be trained",
        "train ruac-0: finished",
        "train ruac-1: begun, would be resumed",
        "sweep own: 2 of 4 models finished",
        "sweep replay: 1 of 2 models finished",
    ]
    plan.overrides = ["corrections=9"]
    other = f"train ruac-0: finished with another corrections than the plan has now; delete {plan.runs()[1].folder}"
    assert other in status(plan)[1]
    scripts.calls = []
    run_plan(plan, only=["ruac"], start=scripts)
    assert other in capsys.readouterr().out
    assert scripts.names("train") == ["ruac-1"]


def test_one_queue_at_a_time(plan, scripts):
    Path(plan.out).mkdir()
    with open(Path(plan.out) / ".lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(RuacError, match="another queue, or a process that it started, is at work here"):
            run_plan(plan, start=scripts)
    assert run_plan(plan, start=scripts) == []


def test_several_processes_go_through_the_launcher(plan, scripts, monkeypatch):
    assert "torch.distributed.run" not in tool("train")
    assert tool("train", "x", processes=4)[-4:-2] == ["--standalone", "--nproc_per_node=4"]
    started = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    plan.cpu = False
    plan.rows = [*plan.rows[:1], RowConfig("ruac", train="configs/train/ruac.yaml")]
    run_plan(plan, start=lambda command, log: started.append(command) or scripts(command, log))
    assert [("--nproc_per_node=8" in command, Path(command[-1]).name) for command in started][1] == (
        False,
        "--head-only",
    )
    assert ["--nproc_per_node=8" in command for command in started] == [True, False, True, True]


def test_a_process_leaves_its_words_and_its_status(tmp_path):
    log = tmp_path / "logs" / "x.log"
    assert start_process(["sh", "-c", "echo out; echo err >&2; exit 3"], log) == 3
    assert log.read_text().splitlines() == ["$ sh -c 'echo out; echo err >&2; exit 3'", "out", "err"]
