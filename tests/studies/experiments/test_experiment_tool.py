"""tools/experiment.py: which experiment, which keys."""

import importlib.util
from pathlib import Path

import pytest

from ruac.base.errors import run_tool
from ruac.studies.experiments import annotators

SCRIPT = Path(__file__).parents[3] / "tools" / "experiment.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("tool_experiment", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_config_reaches_the_experiment(tool, monkeypatch, capsys, tmp_path):
    (tmp_path / "few.yaml").write_text("{limit: 7, protocol: {clicks: 5}}\n")
    seen = []
    monkeypatch.setattr(annotators, "run_annotators", lambda given: seen.append(given) or given.out)
    tool.main(["annotators", "data=x", "--config", str(tmp_path / "few.yaml"), "out=here"])
    assert (seen[0].data, seen[0].limit, seen[0].protocol.clicks) == ("x", 7, 5)
    assert capsys.readouterr().out == "results: here\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["annotators", "dat=x"], "unknown key 'dat'; did you mean 'data'?"),
        (["annotators"], "key 'data' has no default"),
        (["prompt_paths"], "expected at least one entry"),
        (["channel_shift", "source=x", "domains=[y]", "attacks=[pgd]"], "attacks: 'pgd'"),
        (["annotators", "data=/nowhere"], "/nowhere: expected the folders images/ and regions/"),
    ],
)
def test_user_errors_are_one_line(tool, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run_tool(tool.main, arguments)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
