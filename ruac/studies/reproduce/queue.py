"""The queue: what of a plan is not finished yet, done one process after another, each with its log.

A training is finished when its export is there, a sweep when its manifest is; both are then left alone.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ruac.backbone import backbone_config
from ruac.backbone.load import ROOT, backbone_name
from ruac.base.errors import RuacError
from ruac.base.provenance import save_record
from ruac.evaluation.sweep.results import unreadable
from ruac.studies.reproduce.batches import Batches
from ruac.studies.reproduce.plan import FITS, VANILLA, Fit, PlanConfig, Run, SweepPlan, known

Start = Callable[[list[str], Path], int]
"""Runs a command, appends its output to a log, and returns its exit status."""


def run_plan(plan: PlanConfig, *, only: list[str] | None = None, start: Start | None = None) -> list[str]:
    """Do what is not finished, of all rows or of those in `only`; returns one line per failure.

    start: replaces `start_process`. A failure stops nothing but what needs its result. Raises `RuacError` for an
    unknown row, or when another queue, or a process that one left behind, is at work in the same folder.
    """
    only, start = _rows(plan, only), start or start_process
    out = Path(plan.out)
    with _locked(out):
        save_record(out, plan)
        failures = []
        for run in _runs(plan, only):
            failures += _say(_train(plan, run, start))
        for fit in _fits(plan, only):
            failures += _say(_fit(plan, fit, start))
        for sweep in plan.sweeps:
            failures += _say(_sweep(plan, sweep, only, start))
    return failures


def status(plan: PlanConfig, *, only: list[str] | None = None) -> list[str]:
    """One line per training and per sweep of the plan: what is finished and what a queue would do."""
    only = _rows(plan, only)
    lines = []
    for run in _runs(plan, only):
        state = _finished(run) if run.finished else "begun, would be resumed" if run.begun else "to be trained"
        lines.append(f"train {run.name}: {state} ({run.config})")
    for fit in _fits(plan, only):
        lines.append(f"fit {fit.name}: {'finished' if fit.finished else 'to be fitted'} ({fit.kind})")
    for sweep in plan.sweeps:
        batches = Batches(plan, sweep)
        total = len(batches.wanted(only))
        lines.append(f"sweep {sweep.name}: {total - len(batches.missing(only))} of {total} models finished")
        if count := len(batches.with_failed_images()):
            lines[-1] += f"; {count} batches lack images that could not be read, and would be continued"
    return lines


def start_process(command: list[str], log: Path) -> int:
    """Run `command` to its end; it inherits the queue's lock, which lives as long as either of them."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as stream:
        stream.write(f"$ {shlex.join(command)}\n")
        stream.flush()
        return subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, close_fds=False).returncode


def tool(script: str, *arguments: str, processes: int = 1) -> list[str]:
    """The command that runs an entry script, under torchrun if `processes` is more than one."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    tool = ROOT / "tools" / f"{script}.py"  # not in an installed package, where the command line is
    entry = [str(tool)] if tool.is_file() else ["-m", "ruac.cli", script]
    return [sys.executable, *(launcher if processes > 1 else []), *entry, *arguments]


def _train(plan: PlanConfig, run: Run, start: Start) -> list[str]:
    if run.finished:
        print(f"train {run.name}: {_finished(run)}", flush=True)
        return []
    resume = ["--resume"] if run.begun else []
    # What is frozen and known is not written again with each of many heads.
    settings = run.settings()
    whole = settings.tunes_backbone or backbone_name(backbone_config(settings.backbone)) is None
    part = [] if whole else ["--head-only"]
    commands = (
        tool("train", run.config, *resume, *run.overrides, processes=_processes(plan)),
        tool("export", str(run.folder), str(run.export), *part),
    )
    return _do(plan, f"train {run.name}", run.name, commands, start)


def _fit(plan: PlanConfig, fit: Fit, start: Start) -> list[str]:
    if fit.finished:
        print(f"fit {fit.name}: finished", flush=True)
        return []
    if fit.run is not None and not fit.run.finished:
        return [f"fit {fit.name}: {fit.run.name}, which it is fitted to, is not trained"]
    return _do(plan, f"fit {fit.name}", f"fit.{fit.name}", (tool(FITS[fit.kind], *fit.overrides),), start)


def _finished(run: Run) -> str:
    names = ", ".join(run.differs())
    hint = f"with another {names} than the plan has now; delete {run.folder} to train it again"
    return f"finished {hint}" if names else "finished"


def _sweep(plan: PlanConfig, sweep: SweepPlan, rows: list[str], start: Start) -> list[str]:
    batches, replay = Batches(plan, sweep), None
    if sweep.replay:
        source = next(other for other in plan.sweeps if other.name == sweep.replay)
        replay = Batches(plan, source).done().get(VANILLA)
        if replay is None:
            return [f"sweep {sweep.name}: {VANILLA} is in no finished batch of {sweep.replay}, whose clicks it repeats"]
    tried: list[Path] = []
    try:
        while batch := batches.next(rows, tried):
            folder, models = batch
            tried.append(folder)
            arguments = plan.sweep_overrides(sweep, models, folder, replay=replay)
            command = tool("sweep", str(plan.sweep_file), *arguments, processes=_processes(plan))
            name = f"{sweep.name}.{folder.name}"
            failures = _do(plan, f"sweep {name} of {len(models)} models", f"sweep.{name}", (command,), start)
            if failures and folder not in batches.with_failed_images():  # those are named below
                return failures
    except RuacError as error:
        return [f"sweep {sweep.name}: {error}"]
    if waiting := [model.name for model in batches.missing(rows)]:
        print(f"sweep {sweep.name}: without {', '.join(waiting)}, not ready yet", flush=True)
    folders = dict.fromkeys(batches.done().values())
    return [f"sweep {sweep.name}: {lines[0][:-1]}" for folder in folders if (lines := unreadable(folder))]


def _do(plan: PlanConfig, what: str, name: str, commands: tuple[list[str], ...], start: Start) -> list[str]:
    """Run `commands` until one fails; the failure as a line, if any."""
    log = Path(plan.out) / "logs" / f"{name}.log"
    print(f"{what}: {log}", flush=True)
    before, begin = log.stat().st_size if log.exists() else 0, time.monotonic()
    for command in commands:
        if code := start(command, log):
            return [f"{what}: exit status {code}: {_last_words(log, before)} ({log})"]
    print(f"{what}: done in {time.monotonic() - begin:.0f} s", flush=True)
    return []


def _last_words(log: Path, offset: int) -> str:
    """The last error, or else the last line, behind `offset` bytes of a log."""
    with open(log, "rb") as stream:
        stream.seek(offset)
        lines = [line.strip() for line in stream.read().decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["no output"])[-1]


def _say(failures: list[str]) -> list[str]:
    for line in failures:
        print(f"failed: {line}", flush=True)
    return failures


def _rows(plan: PlanConfig, only: list[str] | None) -> list[str]:
    names = [row.name for row in plan.rows]
    for name in only or ():
        known(name, names, "--only")
    return only or names


def _runs(plan: PlanConfig, rows: list[str]) -> list[Run]:
    """The trainings of `rows`, and those whose models they sweep again or fit."""
    needed = {row.of or row.name for row in plan.rows if row.name in rows}
    return [run for run in plan.runs() if run.row in needed]


def _fits(plan: PlanConfig, rows: list[str]) -> list[Fit]:
    return [fit for fit in plan.fits() if fit.row in rows]


def _processes(plan: PlanConfig) -> int:
    return plan.processes or (1 if plan.cpu else max(1, torch.cuda.device_count()))


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder; the lock is inherited, so that a training that outlives its queue is not started twice."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RuacError(f"{out}: another queue, or a process that it started, is at work here") from None
        os.set_inheritable(stream.fileno(), True)
        yield
