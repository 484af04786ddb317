"""The sweep: any number of models over any number of domains through one prompt path."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ruac.base.errors import RuacError
from ruac.base.files import held
from ruac.data.sample import Record
from ruac.evaluation.score import evaluate_image
from ruac.evaluation.sweep.chunks import ChunkWriter
from ruac.evaluation.sweep.claims import Claims, Job, drop_edited, finishing_on_signal, jobs_left, shared
from ruac.evaluation.sweep.config import SweepConfig
from ruac.evaluation.sweep.opened import Sweep, open_sweep
from ruac.evaluation.sweep.panels import write_panels
from ruac.evaluation.sweep.results import finish_results, merge_results


def run_sweep(config: SweepConfig) -> Path:
    """Evaluate, continuing whatever is finished in ``config.out``; returns that folder.

    The processes of ``accelerate launch`` share the work image by image, over a folder that all of them see; the
    results do not depend on their number. An image that cannot be read is left out, named in the manifest under
    "failed", and tried again by the next sweep into the same folder. Ctrl-C and SIGTERM finish the image at hand.
    Raises `RuacError` for unusable models or domains, if no image at all could be read, and if another sweep is at
    work in the folder.
    """
    sweep = open_sweep(config)
    with held(sweep.out) if is_main_process() else nullcontext():
        return _run(sweep)


def _run(sweep: Sweep) -> Path:
    state = PartialState()
    if state.is_main_process:
        drop_edited(sweep)
    jobs = shared(lambda: jobs_left(sweep))
    claims = Claims(len(jobs))
    failed = gather_object(_evaluate(sweep, jobs, claims))  # and so all processes have saved
    merged = shared(lambda: merge_results(sweep, failed))
    pictures = Claims(len(merged.panels))
    for number in pictures:
        write_panels(sweep, merged.panels[number])
    state.wait_for_everyone()
    if state.is_main_process:
        finish_results(sweep, merged, failed)
    state.wait_for_everyone()
    return sweep.out


def is_main_process() -> bool:
    """Whether this process is the one that reports."""
    return PartialState().is_main_process


def _evaluate(sweep: Sweep, jobs: list[Job], claims: Claims) -> list[dict[str, str]]:
    """Do the images that this process claims; returns those that could not be read."""
    failed = []
    writer = ChunkWriter(sweep.out, sweep.key)
    with finishing_on_signal() as stopped, _progress(enabled=is_main_process()) as bar:
        task = bar.add_task("sweep", total=len(jobs))
        for number in claims:
            if stopped():
                break
            domain, position, image = jobs[number]
            bar.update(task, description=domain, completed=number)  # claimed by any process
            dataset = sweep.domains[domain]
            record = dataset.records[position]
            try:
                _check_encodable(record)
                sample = dataset[position]
            except RuacError as error:
                entry = {"domain": domain, "image": record.id, "path": str(record.path), "error": str(error)}
                failed.append({key: _printable(text) for key, text in entry.items()})
                continue
            writer.open(domain, image)
            replay = None if sweep.clicks is None else sweep.clicks(domain, sample.record)
            evaluate_image(sweep.models, sample, sweep.config.protocol, writer.scores, domain=domain, replay=replay)
            writer.add(image)
        writer.save()
        if stopped():
            raise KeyboardInterrupt
        bar.update(task, completed=len(jobs))
    return failed


def _check_encodable(record: Record) -> None:
    """File names are bytes, rows are text. Raises `RuacError` for names that are not UTF-8."""
    for text in (record.id, *record.object_ids):
        if text != _printable(text):
            raise RuacError(f"{_printable(str(record.path))}: the name is not UTF-8; rename the file")


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _progress(*, enabled: bool) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, disable=not enabled)
