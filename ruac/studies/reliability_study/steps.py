"""A step of a study: a fit or a sweep that is done once, and again only if anything it depends on is asked anew."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from ruac.base.errors import RuacError
from ruac.base.files import write_text
from ruac.base.version import VERSION
from ruac.evaluation.conformal.fit import ConformalConfig, run_conformal
from ruac.evaluation.sweep.config import SweepConfig
from ruac.evaluation.sweep.results import unreadable
from ruac.evaluation.sweep.runner import run_sweep
from ruac.fitting.calibrate import CalibrateConfig, run_calibrate

RUNS = {CalibrateConfig: run_calibrate, ConformalConfig: run_conformal, SweepConfig: run_sweep}


@dataclass(frozen=True)
class Step:
    """name: of the step and of what it leaves in the study's folder. needs: steps whose results it reads."""

    folder: Path
    name: str
    config: CalibrateConfig | ConformalConfig | SweepConfig
    needs: tuple[Step, ...] = ()

    @property
    def out(self) -> Path:
        return Path(self.config.out)

    @cached_property
    def key(self) -> str:
        """Hash of the settings of this step and of all that it needs, and of the version."""
        content = [VERSION, type(self.config).__name__, asdict(self.config), [step.key for step in self.needs]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def finished(self) -> bool:
        """Whether it was done with these settings."""
        return (
            self.out.exists() and self._stamp.is_file() and self._stamp.read_text(encoding="utf-8").strip() == self.key
        )

    def do(self) -> list[str]:
        """Do it; returns a line for each picture that a sweep could not read, and is not finished then.

        Raises `RuacError`, with the step's name, as what it runs does.
        """
        try:
            self.config.validate()
            RUNS[type(self.config)](self.config)
        except RuacError as error:
            raise RuacError(f"{self.name}: {error}") from error
        lost = unreadable(self.out) if isinstance(self.config, SweepConfig) else []
        if not lost:
            write_text(self._stamp, self.key + "\n")
        return lost

    @property
    def _stamp(self) -> Path:
        return self.folder / "steps" / f"{self.name}.sha256"
