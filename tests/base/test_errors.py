"""Entry scripts: one line and the right exit status."""

import io
import sys

import pytest
import torch

from ruac.base.errors import RuacError, run_tool


def stop_with(error):
    def main(argv):
        raise error

    return main


def test_a_user_error_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as info:
        run_tool(stop_with(RuacError("a.json: bad\n  key 'x':\tgone")), [])
    assert info.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: a.json: bad key 'x': gone\n")
    assert info.value.__suppress_context__  # no traceback of the cause


def test_an_interrupt_is_status_130(capsys):
    with pytest.raises(SystemExit) as info:
        run_tool(stop_with(KeyboardInterrupt()), [])
    assert info.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_tool(stop_with(ZeroDivisionError()), [])


def test_arguments(monkeypatch):
    seen = []
    run_tool(seen.append, ["a", "b"])
    monkeypatch.setattr(sys, "argv", ["tool.py", "c"])
    run_tool(seen.append)
    assert seen == [["a", "b"], ["c"]]


class _Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise RuacError("a.png: image file not found")


def test_an_error_of_a_worker_process_is_one_line(capsys):
    loader = torch.utils.data.DataLoader(_Broken(), num_workers=1)
    with pytest.raises(SystemExit):
        run_tool(lambda argv: list(loader), [])
    assert capsys.readouterr().err == "error: a.png: image file not found\n"


def test_an_error_of_a_worker_process_has_its_own_message():
    loader = torch.utils.data.DataLoader(_Broken(), num_workers=1)
    with pytest.raises(RuacError) as info:
        list(loader)
    assert str(info.value) == "a.png: image file not found"


def test_home_in_arguments(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    seen = []
    run_tool(seen.extend, ["~/a", "--out=~/b", "~c", "a=~/d", "--x", "/~/e"])
    assert seen == ["/home/somebody/a", "--out=/home/somebody/b", "~c", "a=~/d", "--x", "/~/e"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_console_that_is_not_utf_8(monkeypatch, encoding):
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", console)
    run_tool(lambda argv: print("wrote \u6a19\u672c.png \u2714 \udcff"), [])
    console.flush()
    assert console.buffer.getvalue() == rb"wrote \u6a19\u672c.png \u2714 \udcff" + b"\n"
