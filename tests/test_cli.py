"""The command ``ruac``: every help at once, and names that stand in two places."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from ruac.cli import VERBS, main

ROOT = Path(__file__).parents[1]


def module(verb):
    return import_module(f"ruac.cli.{verb.replace('-', '_')}")


def test_no_help_imports_torch():
    code = f"""
import sys
from ruac.cli import main
for words in [["--help"], ["--version"], *([verb, "--help"] for verb in {list(VERBS)})]:
    try:
        main(words)
    except SystemExit as stop:
        assert stop.code == 0
heavy = [name for name in ("torch", "torchvision", "numpy", "pandas", "matplotlib") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(f"usage: ruac {verb} " in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example_and_a_script(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"example:\n  ruac {verb} " in capsys.readouterr().out
    assert module(verb).EXAMPLE.startswith(f"ruac {verb} ")
    assert f"from ruac.cli.{verb.replace('-', '_')} import main" in (
        ROOT / "tools" / f"{verb.replace('-', '_')}.py"
    ).read_text(encoding="utf-8")


def test_files_and_verbs_are_the_same():
    files = {path.stem for path in (ROOT / "ruac" / "cli").glob("*.py")}
    assert files - {"__init__", "__main__", "parser"} == {verb.replace("-", "_") for verb in VERBS}


def test_an_unknown_verb_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["swep"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: 'swep': unknown verb; did you mean 'sweep'? ruac --help lists them\n"


def test_names_that_spare_an_import_are_those_of_the_library():
    from ruac.backbone.names import OFFICIAL
    from ruac.data.domains import PROTOCOLS

    assert tuple(OFFICIAL) == module("fetch-checkpoint").SIZES
    assert tuple(PROTOCOLS) == module("prepare-domain").PROTOCOLS


def test_an_unknown_config_name_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "rauc", "source=x"])
    assert stopped.value.code == 2
    assert "did you mean 'ruac'" in capsys.readouterr().err


def completions(line, tmp_path):
    """What the shell is told, as the shell asks: by the environment, and a file for the answer."""
    pytest.importorskip("argcomplete", reason="needs the extra completion")
    answer = tmp_path / "answer"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n"}
    environment = os.environ | asked | {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    code = "from ruac.cli import main; main([])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    return [word.strip() for word in answer.read_text().split("\n")]


def test_a_shell_completes_verbs_arguments_and_values(tmp_path):
    assert set(completions("ruac ", tmp_path)) >= set(VERBS)
    assert completions("ruac review-q", tmp_path) == ["review-queue"]
    assert set(completions("ruac predict --po", tmp_path)) == {"--point"}
    assert completions("ruac review-queue answers --to ", tmp_path) == ["label-studio", "cvat", "fiftyone"]
    (tmp_path / "photo.jpg").touch()
    assert completions("ruac predict ph", tmp_path) == ["photo.jpg"]


def test_without_argcomplete_a_shell_gets_no_answer(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setenv("COMP_LINE", "ruac ")
    main([])
    assert capsys.readouterr().out == ""
