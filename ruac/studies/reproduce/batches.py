"""Batches of a sweep on disk: which models were swept together, and which are still to be swept.

A batch holds what was ready and in no batch before. So a row that failed, or that is added to the plan later, costs a
sweep of its own models only, while all others share encoded images and, where masks are the same, clicks.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

from ruac.base.errors import RuacError
from ruac.base.files import read_json, sha256, write_text
from ruac.evaluation.results.schema import MANIFEST
from ruac.evaluation.sweep.results import unreadable
from ruac.studies.reproduce.plan import VANILLA, Model, PlanConfig, SweepPlan

MEMBERS = "members.json"


class Batches:
    """The batches of `sweep` in ``OUT/sweeps/NAME/0, 1, ...``, each with vanilla in it.

    ``members.json`` names the models with a hash of all that the plan says of their sweep, and of their files:
    what was made from another plan, or from weights that were trained again since, does not count as done.
    """

    def __init__(self, plan: PlanConfig, sweep: SweepPlan):
        self.plan, self.sweep = plan, sweep
        self.folder = Path(plan.out) / "sweeps" / sweep.name

    def wanted(self, rows: list[str] | None = None) -> list[Model]:
        """The models of the sweep, or those of `rows`."""
        named = [model for model in self.plan.models() if not self.sweep.rows or model.row in self.sweep.rows]
        return [model for model in named if rows is None or model.row in rows]

    def done(self) -> dict[str, Path]:
        """By name of a model, the finished batch that holds it."""
        current = {model.name: self._identity(model) for model in self.plan.models() if model.ready}
        found: dict[str, Path] = {}
        for folder in self._folders():
            if (folder / MANIFEST).is_file():
                for name, identity in _members(folder).items():
                    if current.get(name) == identity:
                        found.setdefault(name, folder)
        return found

    def with_failed_images(self) -> list[Path]:
        """The finished batches that lack images which could not be read: the next queue tries these again."""
        finished = [folder for folder in self._folders() if (folder / MANIFEST).is_file()]
        return [folder for folder in finished if unreadable(folder)]

    def missing(self, rows: list[str] | None = None) -> list[Model]:
        """The wanted models that are in no finished batch, ready or not."""
        done = self.done()
        return [model for model in self.wanted(rows) if model.name not in done]

    def next(self, rows: list[str] | None = None, tried: list[Path] | None = None) -> tuple[Path, list[Model]] | None:
        """Folder and models of a batch to continue or to begin; None if no wanted model is ready.

        Continued is what was interrupted and what lacks images. tried: folders that are not to be tried again.

        Raises `RuacError` if a batch was begun with models that are others now.
        """
        every = {model.name: model for model in self.plan.models() if model.ready}
        lacking = self.with_failed_images()
        begun = [folder for folder in self._folders() if folder in lacking or not (folder / MANIFEST).is_file()]
        begun = [folder for folder in begun if folder not in (tried or ())]
        if begun:
            members = _members(begun[0])
            for name, identity in members.items():
                if name not in every or self._identity(every[name]) != identity:
                    raise RuacError(f"{begun[0]}: begun with another {name!r} or other settings; delete this folder")
            return begun[0], [every[name] for name in members]
        ready = [model for model in self.missing(rows) if model.ready]
        if not ready:
            return None
        others = [model for model in ready if model.name != VANILLA][: self.plan.models_per_sweep]
        models = [every[VANILLA], *others]
        folder = next(path for n in itertools.count() if not (path := self.folder / str(n)).exists())
        identities = {model.name: self._identity(model) for model in models}
        write_text(folder / MEMBERS, json.dumps(identities, indent=1) + "\n")
        return folder, models

    def _folders(self) -> list[Path]:
        return sorted((path.parent for path in self.folder.glob(f"*/{MEMBERS}")), key=lambda path: int(path.name))

    def _identity(self, model: Model) -> str:
        made_of = [sha256(path) for path in model.files]
        content = [self.plan.sweep_settings(self.sweep), self.sweep.replay, model.entry, made_of]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _members(folder: Path) -> dict[str, str]:
    return read_json(folder / MEMBERS)
