"""Which steps a study has, what they depend on, and what happens when it is asked again."""

from dataclasses import replace

import pytest

from ruac.base.errors import RuacError
from ruac.cli import main
from ruac.data.open import open_dataset
from ruac.studies.reliability_study import steps
from ruac.studies.reliability_study.config import StudiedModel, StudyConfig
from ruac.studies.reliability_study.plan import Plan
from ruac.studies.reliability_study.run import run_study, status


def named(config):
    return {step.name: step for step in Plan(config).steps}


def test_every_step_stands_once_behind_what_it_needs(study_config):
    head = StudiedModel("head", export="runs/head")
    ordered = Plan(replace(study_config, models=[*study_config.models, head])).steps
    place = {step.name: number for number, step in enumerate(ordered)}
    assert len(place) == len(ordered)
    for step in ordered:
        assert all(place[other.name] < place[step.name] for other in step.needs)
    fits = {name.removeprefix("fits/plain/") for name in place if name.startswith("fits/plain/")}
    assert fits == {"temperature", "clustered_2", "pixels_50", "all", "oracle/first", "oracle/second"}
    assert not [name for name in place if name.startswith("fits/head/") and "_" in name]  # the first is ablated
    given = {step.name: step.config for step in ordered}
    assert (given["fits/head/all"].export, given["fits/head/all"].backbone) == ("runs/head", None)
    first, last = given["sweeps/head/source"].models[:2]
    assert (first.name, first.export, last.name) == ("none", "runs/head", "temperature")


def test_fits_say_what_they_saw(study_config):
    found = named(study_config)
    told = {name: found[f"fits/plain/{name}"].config for name in ("temperature", "all", "oracle/first", "pixels_50")}
    assert {name: fit.fitted_on for name, fit in told.items()} == {
        "temperature": "source",
        "all": "all",
        "oracle/first": "oracle",
        "pixels_50": "source",
    }
    assert told["pixels_50"].sampling.pixels == 50
    assert found["fits/plain/clustered_2"].config.clustered.clusters == 2


def test_no_picture_is_swept_that_any_row_was_fitted_on(finished_study, study_config):
    fits = finished_study / "fits" / "plain"
    for domain in ("first", "second"):
        seen = set((fits / "all" / "splits" / domain / "fit.txt").read_text().split())
        assert seen == set((fits / "oracle" / domain / "splits" / domain / "fit.txt").read_text().split())
        entry = named(study_config)[f"sweeps/plain/domains/{domain}"].config.domains[0]
        place, _, split = entry.rpartition("@")
        swept = {record.id for record in open_dataset(place, split=split).records}
        assert len(swept) == 4
        assert not swept & seen
    lists = sorted(fits.glob("*/splits/shapes*/held_out.txt"))
    source = [set(path.read_text().split()) for path in lists if path.parts[-4] != "all"]
    assert len(source) == 3
    assert all(own == source[0] for own in source)
    assert not set((fits / "all" / "splits" / lists[0].parent.name / "fit.txt").read_text().split()) & source[0]


def test_what_is_finished_is_not_done_again(finished_study, study_config, monkeypatch):
    monkeypatch.setattr(steps, "RUNS", {})  # any step that is done fails
    assert all(line.startswith("done") for line in status(study_config))
    run_study(study_config)
    other = replace(study_config, pixels=[60])
    left = {line.split()[-1] for line in status(other) if line.startswith("to do")}
    redone = {"source", "domains/first", "domains/second"}
    assert left == {"fits/plain/pixels_60", *(f"sweeps/plain/{name}" for name in redone)}


def test_a_changed_fit_asks_for_its_sweeps_anew(finished_study, study_config):
    left = {line.split()[-1] for line in status(replace(study_config, seed=1)) if line.startswith("to do")}
    assert left == set(named(study_config))


def test_a_step_that_fails_says_which(study_config, tmp_path):
    config = replace(study_config, calibrations=["clustered"], bounded=["none"], out=str(tmp_path / "study"))
    with pytest.raises(RuacError, match=r"fits/plain/clustered: 6 images to calibrate on, expected at least 16"):
        run_study(config)
    assert not (tmp_path / "study" / "index.md").exists()
    assert not list((tmp_path / "study").glob("steps/**/*.sha256"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": []}, "at least one entry under models"),
        ({"models": [StudiedModel("a", "b", "c")]}, "model 'a': expected exactly one of backbone= and export="),
        ({"calibrations": ["temprature"]}, "calibrations: 'temprature', expected any of: temperature, clustered"),
        ({"ablated": ["other"]}, "ablated: 'other', expected any of: plain"),
        ({"bounded": ["local"]}, "bounded: 'local', expected any of: none, temperature"),
        ({"target_images": 6}, "target_images: 6, expected at least 8"),
        ({"clusters": [0]}, "clusters: \\[0\\]"),
        ({"held_out": 0.0}, "held_out: 0.0"),
        ({"corruptions": ["fog:9"]}, "fog:9"),
        ({"alpha": 1.5}, "alpha"),
        ({"limit": -1}, "limit: -1"),
    ],
)
def test_bad_values_are_one_line(study_config, change, message):
    with pytest.raises(RuacError, match=message):
        replace(study_config, **change).validate()


def test_two_domains_of_one_name(study_config, study_domains):
    with pytest.raises(RuacError, match="another domain is named 'first' already"):
        Plan(replace(study_config, domains=[str(study_domains), str(study_domains / "first")]))


def test_the_command(monkeypatch, capsys, tmp_path):
    from ruac.studies.reliability_study import run

    asked = []
    monkeypatch.setattr(run, "run_study", lambda config: (asked.append(config), (tmp_path, []))[1])
    words = ["study", "models=[{name: a, backbone: nano}]", "source=x@val", "domains=[y]", "limit=3"]
    main(words)
    assert isinstance(asked[0], StudyConfig)
    assert (asked[0].models[0].backbone, asked[0].limit) == ("nano", 3)
    assert capsys.readouterr().out == f"study: {tmp_path / 'index.md'}\n"
    monkeypatch.setattr(run, "run_study", lambda config: (tmp_path, ["one picture"]))
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 1
