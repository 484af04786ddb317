"""The benchmarks of steps, looks, growth and processes on tiny sizes, and runs as files; no time is tested."""

import json
import pickle

import pytest
import torch

from ruac.base.errors import RuacError
from ruac.cli import benchmark
from ruac.studies.benchmark import growth, looks, merge, processes, record, step
from ruac.studies.benchmark.cases import Case
from ruac.studies.benchmark.rows import Least, Row


def by_name(rows):
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.seconds >= 0 and row.ratio > 0 for row in rows)
    return {row.name.split(": ", 1)[1]: row for row in rows}


@pytest.mark.slow  # starts a process, which imports everything
def test_a_step_is_compared_with_its_floor():
    rows = by_name(step.run(side=64, batch_size=1, repeats=1))
    floor, whole = rows["floor"], rows["step of ruac.yaml"]
    assert floor.ratio == 1
    assert whole.ratio == pytest.approx(whole.seconds / floor.seconds)
    assert rows["loading its batch"].ratio == pytest.approx(rows["loading its batch"].seconds / whole.seconds)
    assert rows["peak memory of a step, to its live activations"].note.startswith("peak ")


def test_the_floor_reaches_every_parameter_of_the_head(tmp_path):
    made = step.Step(64, 1, tmp_path)
    made.decode(made.clean_encode()).backward()
    assert all(parameter.grad is not None for parameter in made.task.head.pixel_shape.parameters())
    image = made.batch["image"].clone().requires_grad_()
    made.decode(made.task.backbone.encode(image)).backward()
    assert image.grad.abs().max() > 0
    assert made.batch["valid"].any()


def test_looks_are_compared_with_asking_anew():
    rows = by_name(looks.run(side=64, objects=2, repeats=1))
    assert list(rows) == ["encode and decode each", "look, zoom", "look, flip"]
    assert rows["look, zoom"].target == "<= 1.3"


def test_growth_is_relative_to_the_smallest():
    rows = by_name(growth.run(sides=(64, 128), objects=(1, 2), batches=(1, 3), repeats=1))
    small, large = rows["encode, 64 px"], rows["encode, 128 px"]
    assert small.ratio == 1
    assert large.ratio == pytest.approx(large.seconds / small.seconds / 4)
    one, three = rows["encode a batch, 1 pictures"], rows["encode a batch, 3 pictures"]
    assert three.ratio == pytest.approx(three.seconds / one.seconds / 3)
    assert rows["sweep of a picture, 1 objects"].ratio == 1


def test_a_merge_is_that_of_fifty_models():
    (row,) = merge.run(models=2, repeats=1)
    assert row.ratio == pytest.approx(row.seconds * 25 * 24 / 60)
    assert row.note.startswith("50 models, 24 domains: ")


@pytest.mark.slow  # starts processes, which import everything
@pytest.mark.timeout(900)
def test_two_processes_are_compared_with_one():
    one, two = processes.run(cases=[Case("nano", 64, 2)], pictures=1, repeats=1)
    assert two.ratio == pytest.approx(2 * one.seconds / two.seconds)
    assert two.note.startswith("by the clock ")


def test_spread_is_that_of_the_median():
    assert Least([2.0, 1.0, 1.5]).spread == 0.5
    assert Row("x", Least([1.0]), 1.0).spread == 0
    assert Row("x", 1.0, 1.0).spread is None


def test_what_changed_between_two_files(tmp_path, capsys):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    same, left = Row("a: same", 1.0, 1.0), Row("a: left", 1.0, 1.0)
    record.save_rows(old, {"head": [same, left, Row("a: slow", Least([1.0, 2.0]), 1.2, "<= 1.1")]})
    record.save_rows(new, {"head": [Row("a: same", 9.0, 1.05), Row("a: slow", 1.0, 0.6, "<= 1.1")]})
    content = json.loads(old.read_text())
    assert content["benchmarks"]["head"][2]["spread"] == 0.5
    assert content["machine"]["cores"] > 0
    assert content["machine"]["processor"]
    assert content["environment"]["versions"]["torch"] == torch.__version__
    benchmark.main(["--compare", str(old), str(new)])
    said = capsys.readouterr().out
    assert "| head: a: slow | 1.2 | 0.6 | -50% | missed -> met |" in said
    assert "1 of 2 ratios differ by at most 10%." in said
    assert f"Only in {old}: head: a: left" in said
    assert "same |" not in said


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1, "benchmarks": {"a": [1]}}', '{"format": 2}'])
def test_files_of_something_else_are_refused(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(RuacError, match=r"rows\.json"):
        record.compare(path, path)
    with pytest.raises(RuacError, match=r"absent\.json: not found"):
        record.compare(tmp_path / "absent.json", path)


def test_least_times_come_back_from_a_process_as_they_were():
    least = pickle.loads(pickle.dumps(Least([3.0, 2.0, 4.0])))
    assert (least, least.spread) == (2.0, 0.5)
