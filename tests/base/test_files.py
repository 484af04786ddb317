"""Files are whole or absent."""

import errno
import hashlib
import os

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ruac.base import files
from ruac.base.errors import RuacError
from ruac.base.files import atomic_path, sha256, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_and_replaces_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b" / "text.txt"
    write_text(path, "één\n")
    assert path.read_bytes() == "één\n".encode()
    write_text(path, "two")
    assert path.read_text() == "two"
    assert names(path.parent) == ["text.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, RuntimeError, FileNotFoundError])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "text.txt"
    path.write_text("old")

    def attempt():
        with atomic_path(path) as temporary:
            assert temporary.parent == path.parent  # else the rename would be a copy
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        attempt()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["text.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_user_error(tmp_path, monkeypatch, number):
    path = tmp_path / "text.txt"
    path.write_text("old")

    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RuacError, match=r"text\.txt: no free disk space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["text.txt"]


@pytest.mark.parametrize("save", [torch.save, save_file])
def test_a_full_disk_is_known_from_the_errors_of_torch_and_safetensors(tmp_path, monkeypatch, save):
    """Both wrap the system's error; without a full disk their errors pass through."""
    bad = tmp_path / "a folder"
    bad.mkdir()

    def attempt():
        with atomic_path(tmp_path / "model") as temporary:
            temporary.write_text("half")
            save({"a": torch.zeros(2)}, bad)

    with pytest.raises((RuntimeError, SafetensorError)):
        attempt()
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
    with pytest.raises(RuacError, match="model: no free disk space"):
        attempt()
    assert names(tmp_path) == ["a folder"]


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "y" / "x", tmp_path / "folder"):
        with pytest.raises(RuacError, match="cannot be written") as info:
            write_text(path, "new")
        assert str(path) in str(info.value)
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 7])
def test_hash(tmp_path, size):
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "x").write_bytes(content[:size])
    assert sha256(tmp_path / "x") == hashlib.sha256(content[:size]).hexdigest()
