"""Benchmarks run on tiny sizes and say something; how long anything takes is never tested."""

import importlib.util
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from subprocess import CalledProcessError

import numpy as np
import pytest
import torch

from ruac.backbone.load import ROOT
from ruac.base.errors import RuacError
from ruac.cli.benchmark import NAMES, ON_REQUEST, benchmarks
from ruac.evaluation.metrics import boundary_f
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Scores, evaluate_image
from ruac.studies.benchmark import automatic, boundary, demo, gpu, head, memory, metrics, onnx, startup, sweep
from ruac.studies.benchmark import rows as rows_module
from ruac.studies.benchmark.cases import Case
from ruac.studies.benchmark.rows import Row, fastest, markdown

TINY = Case("nano", 64, 2)


def checked(rows):
    """Rows by the last part of their names."""
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert all(part.strip() for part in row.name.split(":")), row
        assert 0 <= row.seconds < math.inf, row
        assert 0 <= row.ratio < math.inf, row
        assert row.verdict in (("met", "missed") if row.target else ("",)), row
    return {row.name.rsplit(": ", 1)[1]: row for row in rows}


def test_parts_of_a_sweep_add_up(monkeypatch):
    monkeypatch.setattr(metrics, "LIMIT_SIDE", TINY.side)
    rows = metrics.run(cases=[TINY], repeats=1)
    checked(rows[: len(rows) // 2])
    for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        assert sum(row.ratio for row in half) == pytest.approx(1)
        assert [row.name.rsplit(": ", 1)[1] for row in half] == [*metrics.PARTS, metrics.REST]
        assert all(row.seconds > 0 for row in half)
        assert [row.name.rsplit(": ", 1)[1] for row in half if row.target == "<= 0.05"] == ["metrics"]


def test_every_part_has_the_calls_that_enter_it(monkeypatch):
    """A clock that ticks once per reading: parts get time exactly where their functions are called."""
    ticks = iter(range(1 << 40))
    monkeypatch.setattr(metrics.time, "process_time", lambda: float(next(ticks)))
    model, sample = TINY.model(), TINY.sample()
    metrics.profile_image({"ruac": model}, sample)  # the first pass fills caches
    before = metrics.profile_image({"ruac": model}, sample)
    encode = model.backbone.encode
    monkeypatch.setattr(type(model.backbone), "encode", lambda self, images: (encode(images), encode(images))[1])
    twice = metrics.profile_image({"ruac": model}, sample)
    assert twice["encode"] == pytest.approx(2 * before["encode"], rel=0.01)
    for part in ("decode", "clicks", "metrics", "head and maps"):
        assert twice[part] == pytest.approx(before[part], rel=0.01)


def test_sweep_compares_with_encoder_and_decoder():
    rows = checked(sweep.run(cases=[TINY], repeats=1))
    whole = "sweep, to encode + "
    alone = {name: rows[f"{name} alone"].seconds for name in ("encode", "decode", "decode in blocks")}
    assert len(rows) == 5
    for name in ("decode", "decode in blocks"):
        row = rows[whole + name]
        assert row.ratio == pytest.approx((alone["encode"] + alone[name]) / row.seconds)
        assert row.target == (">= 0.85" if name == "decode in blocks" else "")


@pytest.mark.slow  # starts processes, which import everything
def test_memory_is_given_for_every_count():
    rows = memory.run(counts=[10, 20])
    checked([row for row in rows if row.name.startswith("metrics")])
    assert [row.name.split(": ")[1] for row in rows] == ["10 objects", "20 objects"] * 3
    assert [row.ratio for row in rows if "10 objects" in row.name] == [1, 1, 1]
    assert all(row.ratio >= 1 and "MiB" in row.note for row in rows)


@pytest.mark.slow  # starts processes, which import everything
def test_memory_of_a_started_process_is_its_own():
    held = np.ones(1 << 26)  # 512 MiB
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        started = pool.submit(memory.peak_memory).result()
    assert 0 < started < memory.peak_memory() - held.nbytes // 2


def test_boundary_agrees_with_the_loop():
    rows = checked(boundary.run(side=96, objects=3, repeats=1))
    assert rows.keys() == {"distance transforms", "boundary_f", "largest difference of F"}
    assert rows["largest difference of F"].verdict == "met"


def test_boundary_loop_is_a_reference():
    truth = np.zeros((3, 40, 50), bool)
    truth[:2, 10:20, 10:30] = True
    moved = np.roll(truth, 2, axis=2)
    moved[1] = False
    np.testing.assert_allclose(boundary.boundary_f_by_distance(moved, truth), boundary_f(moved, truth), atol=1e-12)
    assert boundary.boundary_f_by_distance(moved, truth)[1:].tolist() == [0, 1]


def test_head_is_compared_within_its_group():
    rows = head.run(cases=[TINY], repeats=1, train_side=64, batch_size=1)
    assert checked(rows).keys() == {
        "decode, vanilla",
        "decode, Bayesian head",
        "decode, Bayesian head, kappa_pool 2",
        "decode, with all that it has",
        "maps, analytic",
        "maps, with quadrature split",
        "maps, 5 samples",
        "maps, 20 samples",
        "training step, bayes.yaml",
        "training step, ruac.yaml",
    }
    firsts = [row.name.rsplit(": ", 1)[1] for row in rows if row.ratio == 1]
    assert firsts == ["decode, vanilla", "maps, analytic", "decode, vanilla", "training step, bayes.yaml"]


def test_a_case_answers_with_disks_of_its_objects():
    scores = Scores()
    case = Case("nano", 128, 3)
    evaluate_image({"ruac": case.model()}, case.sample(), ProtocolConfig(), scores, domain="test")
    assert len(scores.rows) == 3
    assert all(0 < row["j"] < 1 for row in scores.rows)


def test_fastest_takes_turns_and_keeps_the_least(monkeypatch):
    order, clock, costs = [], [0.0], iter([3, 1, 2, 5])
    monkeypatch.setattr(rows_module.time, "process_time", lambda: clock[0])

    def work(name):
        order.append(name)
        clock[0] += next(costs)

    seconds = fastest({"a": lambda: work("a"), "b": lambda: work("b")}, repeats=2)
    assert order == ["a", "b", "a", "b"]
    assert seconds == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("ratio", "target", "verdict"), [(0.05, "<= 0.05", "met"), (9, ">= 10", "missed"), (1, "", "")]
)
def test_verdict(ratio, target, verdict):
    assert Row("x", 1.0, ratio, target).verdict == verdict
    assert f"| {target} | {verdict} |" in markdown([Row("x", 1.0, ratio, target)])


def test_tool_names_an_unknown_benchmark(capsys):
    spec = importlib.util.spec_from_file_location("tool_benchmark", ROOT / "tools" / "benchmark.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit) as stopped:
        module.main(["speed"])
    assert stopped.value.code == 2
    assert "'speed'" in capsys.readouterr().err
    assert all(len(entry) == 3 for entry in benchmarks().values())
    assert tuple(benchmarks()) == (*NAMES, *ON_REQUEST)


def test_startup_measures_imports_and_helps():
    rows = checked(startup.run(verbs=["table"], repeats=1))
    assert list(rows) == ["import torch", "import ruac", "from ruac import Predictor", "help"]
    assert rows["import torch"].ratio == 1
    assert rows["help"].note == "slowest of 1: ruac table --help"
    with pytest.raises(CalledProcessError):
        startup.cpu_seconds([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.slow
def test_onnx_rows_compare_with_eager_and_with_the_truth():
    pytest.importorskip("onnxscript", reason="an extra")
    pytest.importorskip("onnxruntime", reason="an extra")
    rows = {row.name: row for row in onnx.run(counts=(2,), scenes=2, repeats=1)}
    assert [row.ratio for name, row in rows.items() if name.endswith("eager")] == [1, 1]
    exact = rows["nano, 256 px, 2 objects: decode with all maps, ONNX Runtime float32"]
    assert float(exact.note.split()[-1]) < 1e-4
    assert 0.7 < rows["masks, int8"].ratio < 1.3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_gpu_rows_say_how_much_of_the_device_is_used():
    rows = gpu.run(kind="nano", side=128, batch_sizes=(1, 2), objects=2, repeats=1)
    assert len({row.name for row in rows}) == len(rows)
    assert all(0 < row.seconds < math.inf and 0 <= row.ratio <= 1.1 for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a CUDA device")
def test_gpu_rows_need_a_gpu():
    with pytest.raises(RuacError, match="no CUDA device"):
        gpu.run(kind="nano", side=64, batch_sizes=(1,), objects=1, repeats=1)


def test_the_wait_of_the_demo():
    rows = checked(demo.run(repeats=1))
    assert list(rows) == ["first click, picture encoded", "later click", "later click, second look"]
    assert rows["later click, second look"].seconds > rows["later click"].seconds  # another encoding


def test_automatic_masks_and_what_they_would_cost_at_full_size():
    (row,) = checked(automatic.run(sides=(96,), points_per_side=2, repeats=1)).values()
    assert row.note.endswith("s at full size")
    assert row.ratio > 0
