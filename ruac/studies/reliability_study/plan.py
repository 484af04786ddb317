"""The steps of a study: fits on the source and on domains, conformal bounds, and a sweep per model and place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from ruac.base.errors import RuacError
from ruac.calibration.calibrator import ALL, ORACLE
from ruac.calibration.clustered import ClusteredConfig
from ruac.calibration.registry import row_settings
from ruac.data.open import open_dataset, place_and_split
from ruac.evaluation.conformal.fit import ConformalConfig
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.open import prepared_folders
from ruac.fitting.calibrate import CalibrateConfig
from ruac.fitting.draw import PixelConfig
from ruac.studies.reliability_study.config import NONE, StudiedModel, StudyConfig
from ruac.studies.reliability_study.steps import Step

CLUSTERS, PIXELS = "clustered_", "pixels_"
"""What the rows of the two ablations begin with; a number follows."""

SOURCE, WEATHER = "source", "weather"
"""Places beside the domains: held-out pictures of the source, and some of the same under corruptions."""


@dataclass(frozen=True)
class Swept:
    """A finished or wanted sweep: of which model, and where; domain: of the place ``domain`` only."""

    model: StudiedModel
    place: str
    domain: str
    step: Step


class Plan:
    """All steps of `config`, and what each needs. domains: entry of each unseen data set, by its name.

    Raises `RuacError` for domains that are missing or share a name.
    """

    def __init__(self, config: StudyConfig):
        self.config, self.folder = config, Path(config.out)
        self.domains: dict[str, str] = {}  # entries by name
        for entry in config.domains:
            place, split = place_and_split(entry)
            for folder in prepared_folders(place):
                inside = f"{folder}@{split}" if split else str(folder)
                if (name := _name(inside)) in self.domains:
                    raise RuacError(f"{entry}: another domain is named {name!r} already")
                self.domains[name] = inside

    @cached_property
    def sweeps(self) -> list[Swept]:
        found = []
        for model in self.config.models:
            found += [Swept(model, SOURCE, SOURCE, self._source(model)), *self._weather(model)]
        for domain in self.domains:  # all models of a domain before the next, so that a part is a study of fewer
            found += [Swept(model, "domain", domain, self._domain(model, domain)) for model in self.config.models]
        return found

    @cached_property
    def steps(self) -> list[Step]:
        """Each once, behind all that it needs."""
        ordered: dict[str, Step] = {}
        for swept in self.sweeps:
            for step in (*swept.step.needs, swept.step):
                for each in (*step.needs, step):
                    ordered.setdefault(each.name, each)
        return list(ordered.values())

    def rows(self, model: StudiedModel) -> list[str]:
        """Calibrations that are fitted on the source, ablations included."""
        config, ablations = self.config, []
        if model.name in (config.ablated or [config.models[0].name]):
            ablations = [f"{CLUSTERS}{n}" for n in config.clusters] + [f"{PIXELS}{n}" for n in config.pixels]
        return [*config.calibrations, *ablations]

    def _fit(self, model: StudiedModel, row: str) -> Step:
        config = self.config
        common = {"source": config.source, "images": config.images, "held_out": config.held_out}
        if row.startswith(CLUSTERS):
            settings = {"kind": "clustered", "clustered": ClusteredConfig(int(row.removeprefix(CLUSTERS)))}
        elif row.startswith(PIXELS):
            settings = {"kind": "temperature", "sampling": PixelConfig(pixels=int(row.removeprefix(PIXELS)))}
        else:
            settings = row_settings(row)
        return self._calibration(model, row, **common, **settings)

    def _oracle(self, model: StudiedModel, domain: str) -> Step:
        targets, images = [self.domains[domain]], self.config.target_images
        return self._calibration(model, f"{ORACLE}/{domain}", kind=self.config.target, targets=targets, images=images)

    def _all(self, model: StudiedModel) -> Step:
        """Of the source `target_images` pictures among those of the other fits, so that data sets weigh alike."""
        first = self._split()
        source = f"{place_and_split(self.config.source)[0]}@{self._list(first, 'fit')}"
        given = {"source": source, "targets": list(self.domains.values()), "images": self.config.target_images}
        return self._calibration(model, ALL, kind=self.config.target, held_out=0.0, **given, needs=(first,))

    def _calibration(self, model: StudiedModel, row: str, needs: tuple[Step, ...] = (), **settings) -> Step:
        own = self.config
        common = {"seed": own.seed, "cpu": own.cpu, "protocol": own.protocol, "cache": str(self.folder / "answers")}
        name = f"fits/{model.name}/{row}"
        config = CalibrateConfig(out=str(self.folder / name), **model.place, **common, **settings)
        return Step(self.folder, name, config, needs)

    def _split(self) -> Step:
        """The fit whose lists say which source pictures are fitted on; those of all others are the same."""
        return self._fit(self.config.models[0], self.config.calibrations[0])

    def _list(self, fit: Step, part: str) -> Path:
        """A list of pictures that a fit leaves, without its suffix, as the name of a split."""
        (entry,) = [fit.config.source] if fit.config.source is not None else fit.config.targets
        return (fit.out / "splits" / _name(entry) / part).absolute()

    def _bounds(self, model: StudiedModel, row: str) -> Step:
        config, needs = self.config, (self._split(),)
        place = model.place
        if row != NONE:
            needs += (self._fit(model, row),)
            place = {"export": str(needs[-1].out)}
        name = f"bounds/{model.name}/{row}.json"
        source = f"{place_and_split(config.source)[0]}@{self._list(needs[0], 'fit')}"
        own = {"source": source, "alpha": config.alpha, "cpu": config.cpu, "protocol": config.protocol}
        return Step(self.folder, name, ConformalConfig(out=str(self.folder / name), **place, **own), needs)

    def _sweep(self, model: StudiedModel, name: str, fits: dict[str, Step], bounded: bool, **settings) -> Step:
        """A row without calibration, and one per fit."""
        own, needs, models = self.config, list(fits.values()), []
        for row in (NONE, *fits):
            entry = ModelConfig(row, **(model.place if row == NONE else {"export": str(fits[row].out)}))
            if bounded and row in own.bounded:
                needs.append(self._bounds(model, row))
                entry.conformal, entry.alpha = str(needs[-1].out), own.alpha
            models.append(entry)
        name = f"sweeps/{model.name}/{name}"
        common = {"models": models, "panels": 0, "cpu": own.cpu, "protocol": own.protocol}
        return Step(self.folder, name, SweepConfig(out=str(self.folder / name), **common, **settings), tuple(needs))

    def _held_out(self) -> str:
        return f"{place_and_split(self.config.source)[0]}@{self._list(self._split(), 'held_out')}"

    def _source(self, model: StudiedModel) -> Step:
        fits = {row: self._fit(model, row) for row in self.rows(model)}
        if self.config.target:
            fits[ALL] = self._all(model)
        return self._sweep(model, SOURCE, fits, True, domains=[self._held_out()], limit=self.config.source_limit)

    def _weather(self, model: StudiedModel) -> Iterator[Swept]:
        if self.config.corruptions:
            fits = {row: self._fit(model, row) for row in self.config.calibrations}
            corrupted = {"corruptions": self.config.corruptions, "limit": self.config.weather_limit}
            step = self._sweep(model, WEATHER, fits, False, domains=[self._held_out()], **corrupted)
            yield Swept(model, WEATHER, WEATHER, step)

    def _domain(self, model: StudiedModel, domain: str) -> Step:
        fits = {row: self._fit(model, row) for row in self.rows(model)}
        entry = self.domains[domain]
        if self.config.target:
            fits |= {ORACLE: self._oracle(model, domain), ALL: self._all(model)}
            entry = f"{place_and_split(entry)[0]}@{self._list(fits[ORACLE], 'held_out')}"
        name = f"domains/{domain}"
        return self._sweep(model, name, fits, True, domains=[entry], limit=self.config.limit)


@cache
def _name(entry: str) -> str:
    """Of a data set; large annotations take a second to read."""
    place, split = place_and_split(entry)
    return open_dataset(place, split=split).name
