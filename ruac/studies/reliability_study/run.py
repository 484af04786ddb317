"""A study from its config to its pages: what is finished is not done again."""

from __future__ import annotations

from pathlib import Path

from ruac.studies.reliability_study.config import StudyConfig
from ruac.studies.reliability_study.plan import Plan


def status(config: StudyConfig) -> list[str]:
    """A line per step: whether it is done, with these settings."""
    return [f"{'done' if step.finished else 'to do':6}{step.name}" for step in Plan(config).steps]


def run_study(config: StudyConfig) -> tuple[Path, list[str]]:
    """Do all steps that are left, then write tables, figures and ``index.md``; returns the folder, and a line for each
    picture that could not be read.

    Raises `RuacError` for unusable models, data or settings; steps done until then stay done.
    """
    plan, lost = Plan(config), []
    for number, step in enumerate(plan.steps, 1):
        if not step.finished:
            print(f"[{number}/{len(plan.steps)}] {step.name}", flush=True)
            lost += step.do()
    return Path(config.out), lost
