"""Answers on disk: the model is asked once, however many kinds of calibrators are fitted, one picture in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ruac.base.errors import RuacError, brief, keys_of
from ruac.base.files import atomic_path, read_json, write_text
from ruac.calibration import Answers
from ruac.fitting.draw import Stored, as_answers

INDEX = "index.json"  # written last


class CachedAnswers(Sequence[Answers]):
    """Entries of a folder, read when they are asked for. every_click: one entry per picture and round."""

    def __init__(self, folder: Path, *, every_click: bool = False):
        content = read_json(folder / INDEX)
        self.folder = folder
        with keys_of(folder / INDEX):
            self._entries: list[tuple[str, str, int]] = [
                (file, f"{view}.", round)
                for file, rounds in content["entries"]
                for view, count in enumerate(rounds)
                for round in (range(count) if every_click else [count - 1])
            ]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Answers:
        file, prefix, round = self._entries[index]
        return as_answers(_part(_read(self.folder / file), prefix), round=round)


def cache_answers(folder: Path, count: int, ask: Callable[[int], list[Stored]], *, title: str) -> Path:
    """Write ``ask(number)`` for all numbers below `count` to `folder`, but what is there already; returns the folder.

    A file holds the answers to one picture, and is whole or absent. Killed, it continues where it was.
    """
    if (folder / INDEX).is_file():
        return folder
    entries = []
    for number in track(range(count), description=title):
        path = folder / f"{number:06d}.safetensors"
        if not path.is_file():
            tensors = {f"{v}.{name}": x for v, one in enumerate(ask(number)) for name, x in one.items()}
            with atomic_path(path) as temporary:
                save_file(tensors, temporary)
        found = _read(path)
        views = sorted({name.partition(".")[0] for name in found}, key=int)
        entries.append([path.name, [len(found[f"{view}.logits"]) for view in views]])
    write_text(folder / INDEX, json.dumps({"entries": entries}) + "\n")
    return folder


def _part(tensors: Stored, prefix: str) -> Stored:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def _read(path: Path) -> Stored:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RuacError(f"{path}: cannot be read: {brief(error)}; delete the folder, and it is made again") from error
