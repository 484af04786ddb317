"""The answers to a folder of pictures: finished pictures are known by their content, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ruac.base.errors import RuacError, one_line
from ruac.base.files import held, read_json, sha256, write_text
from ruac.base.version import VERSION
from ruac.data.sample import IMAGE_SUFFIXES, read_image
from ruac.inference.automatic import VALUES, AutomaticConfig, AutomaticMasks
from ruac.inference.bounds import bounds_identity
from ruac.inference.predicted import PredictedMasks
from ruac.inference.predictor import Predictor
from ruac.inference.prompts_file import ObjectPrompt
from ruac.inference.save import FORMAT, INDEX, PictureAnswer, discard
from ruac.inference.second_look import LooksConfig, looks_config


@dataclass(frozen=True)
class FolderQuestion:
    """What is asked of every picture: prompts by picture (a picture without one has no answer), or automatic masks.

    looks, alpha: as in `Predictor.predict`.
    """

    prompts: dict[str, list[ObjectPrompt]] | None = None
    automatic: AutomaticConfig | None = None
    looks: list[str] | None = None
    alpha: float | None = None


@dataclass
class FolderRun:
    """Names of pictures. answered: in this run. kept: finished before. failed: with the reason. unprompted: not asked.

    other: files that are no pictures by their suffix.
    """

    answered: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    unprompted: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)


def picture_names(folder: Path, *, beside: Path | None = None) -> tuple[list[str], list[str]]:
    """Pictures in a folder and below, relative to it with ``/``, sorted; and the other files. Hidden ones are neither.

    beside: a folder whose files do not count. Raises `RuacError` where there is no picture.
    """
    beside = None if beside is None else beside.resolve()
    pictures, other = [], []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_dir() or any(part.startswith(".") for part in relative.parts):
            continue
        if beside is None or beside not in path.resolve().parents:
            (pictures if path.suffix.lower() in IMAGE_SUFFIXES else other).append(relative.as_posix())
    if not pictures:
        raise RuacError(f"{folder}: no picture found; expected files that end in {', '.join(IMAGE_SUFFIXES)}")
    return pictures, other


def predict_folder(
    predictor: Predictor, folder: Path, out: Path, question: FolderQuestion, *, progress: bool = True
) -> FolderRun:
    """Answer every picture of `folder` into `out`, as docs/outputs.md says, and then write the list of all, `INDEX`.

    A picture is finished where `out` holds the answer to this content under these settings and prompts; anything else
    that stands under its name is replaced. A picture that cannot be read, or has a prompt outside it, is listed with
    its reason. Raises `RuacError` where there is no picture, `out` cannot be written, or another run is at work there.
    """
    names, other = picture_names(folder, beside=out)
    settings = _settings(predictor, question)
    run = FolderRun(other=other)
    with held(out), _bar(progress) as bar:
        (out / INDEX).unlink(missing_ok=True)  # a list is there only where it is that of a finished run
        entries = []
        for name in bar(names):
            if question.prompts is not None and not question.prompts.get(name):
                run.unprompted.append(name)
                discard(out, name)
                continue
            try:
                entries.append(_answered(predictor, folder, out, name, question, settings, run))
            except _Unanswered as error:
                run.failed[name] = one_line(error)
                discard(out, name)
        failed = [{"file": name, "reason": reason} for name, reason in run.failed.items()]
        content = {"format": FORMAT, "settings": settings, "pictures": entries, "failed": failed}
        content |= {"without_prompt": run.unprompted, "other_files": other}
        write_text(out / INDEX, json.dumps(content, indent=1) + "\n")
    return run


class _Unanswered(Exception):
    """Why there is no answer to one picture; the others go on."""


def _answered(
    predictor: Predictor,
    folder: Path,
    out: Path,
    name: str,
    question: FolderQuestion,
    settings: dict[str, Any],
    run: FolderRun,
) -> dict[str, str]:
    try:
        digest = sha256(folder / name)
    except OSError as error:
        raise _Unanswered(f"{folder / name}: cannot be read: {error.strerror}") from error
    prompts = None if question.prompts is None else question.prompts[name]
    asked = hashlib.sha256(json.dumps([settings, prompts and [asdict(p) for p in prompts]]).encode()).hexdigest()
    if _finished(out, name, digest, asked):
        run.kept.append(name)
    else:
        try:
            image = read_image(folder / name)
            for prompt in prompts or []:
                prompt.check_inside(image.shape[:2])
        except RuacError as error:
            raise _Unanswered(str(error)) from error
        answer = answer_picture(predictor, image, prompts, question)
        answer.save(out, name, picture={"file": name, "sha256": digest}, settings=asked)
        run.answered.append(name)
    return {"file": name, "sha256": digest, "answer": f"{name}.json"}


def answer_picture(
    predictor: Predictor, image: np.ndarray, prompts: list[ObjectPrompt] | None, question: FolderQuestion
) -> PictureAnswer:
    """All objects of one picture ``uint8 [H, W, 3]``, one mask each, in the order of the prompts.

    Automatic masks come by falling reliability.
    """
    whole = PictureAnswer(image.shape[:2])
    if prompts is None:
        found = AutomaticMasks(predictor, question.automatic)
        for candidate, answer in found.answers(image, looks=question.looks, alpha=question.alpha):
            prompt = ObjectPrompt(points=(candidate.point,), labels=(1,))
            whole.add(answer, prompt=prompt.entry())
        whole.rank()
        return whole
    predictor.set_image(image)
    answers: dict[int, PredictedMasks] = {}
    most = max(1, VALUES // (3 * image.shape[0] * image.shape[1]))  # whose maps lie in memory together
    for start in range(0, len(prompts), most):
        batch = prompts[start : start + most]
        for kinds in sorted({(p.box is not None, bool(p.points)) for p in batch}):
            places = [n for n, p in enumerate(batch) if (p.box is not None, bool(p.points)) == kinds]
            answers |= dict(zip(places, _ask(predictor, [batch[n] for n in places], question), strict=True))
        for place, prompt in enumerate(batch):
            whole.add(answers.pop(place).part(slice(0, 1)), kind=prompt.kind, prompt=prompt.entry())
    return whole


def _ask(predictor: Predictor, prompts: list[ObjectPrompt], question: FolderQuestion) -> list[PredictedMasks]:
    """Answers to objects that all have a box or none, and all have points or none."""
    boxes = None if prompts[0].box is None else [p.box for p in prompts]
    points = [p.points for p in prompts] if prompts[0].points else None
    labels = [p.labels for p in prompts] if prompts[0].points else None
    return predictor.predict(points, labels, boxes, looks=question.looks, alpha=question.alpha).each()


def _settings(predictor: Predictor, question: FolderQuestion) -> dict[str, Any]:
    """What an answer depends on beside picture and prompts. Raises `RuacError` for an alpha without bounds."""
    looks: LooksConfig | None = looks_config(predictor.model.looks if question.looks is None else question.looks)
    fitted = predictor.reliability and hashlib.sha256(repr(predictor.reliability).encode()).hexdigest()
    return {
        "ruac": VERSION,
        "model": bounds_identity(predictor.model.looking(looks)),
        "looks": looks and asdict(looks),
        "reliability": fitted or "the smaller of predicted and expected IoU",
        "thresholds": None if question.alpha is None else asdict(predictor.bounds(looks).at(question.alpha)),
        "automatic": question.automatic and asdict(question.automatic),
    }


def _finished(out: Path, name: str, digest: str, asked: str) -> bool:
    try:
        content = read_json(out / f"{name}.json")
        same = (content["picture"]["sha256"], content["settings"]) == (digest, asked)
        there = all((out / name).with_name(file).is_file() for file in content["files"].values())
    except (RuacError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return same and there


@contextmanager
def _bar(enabled: bool) -> Iterator[Callable[[list[str]], Iterator[str]]]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(
        TextColumn("{task.description}"), *columns, console=Console(stderr=True), disable=not enabled
    ) as progress:
        yield lambda names: progress.track(names, description="pictures")
