"""The plan of a reproduction: which rows are trained with which seeds, and how all of them are swept."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruac.backbone.load import ROOT
from ruac.base.config import config_from, load_config, load_record
from ruac.base.errors import RuacError
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.inference.export import CONFIG, WEIGHTS
from ruac.training.adversarial import TrainConfig
from ruac.training.engine import LAST

VANILLA = "vanilla"

FITS = {
    "local_temperature": "fit_local_temperature",
    "temperature": "fit_temperature",
}  # kind of a fit: its entry script


@dataclass
class RowConfig:
    """One row of the table.

    train: config of a training, run once per seed with `overrides`. of: another row, whose trained models are
    swept again in a different way. With neither, the row is the plan's backbone as it is. seeds: default, the
    plan's; a row that trains nothing has them only if they are given here. fit: one of `FITS`, fitted on the source
    to the models of `of`, or to the plan's backbone, with fit_overrides of the fit's own config. model: more fields
    of the row's entries under ``models`` of the sweep; "{seed}" in a value stands for the seed. score: of its
    uncertainty scores, the one that tables show (default: the first, the entropy of the mean).
    """

    name: str = "???"
    train: str | None = None
    of: str | None = None
    seeds: list[int] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    fit: str | None = None
    fit_overrides: list[str] = field(default_factory=list)
    model: dict[str, Any] = field(default_factory=dict)
    score: str | None = None

    def validate(self) -> None:
        if self.train and self.of:
            raise RuacError(f"row {self.name!r}: has train= and of=, expected at most one of them")
        if self.overrides and not self.train:
            raise RuacError(f"row {self.name!r}: overrides: belong to a training, expected train= as well")
        if self.fit not in (None, *FITS):
            raise RuacError(f"row {self.name!r}: fit: {self.fit!r}, expected {' or '.join(FITS)}")
        if self.fit and self.train:
            raise RuacError(f"row {self.name!r}: has train= and fit=; expected of= the row to be fitted")
        if self.fit == "temperature" and self.of:
            raise RuacError(f"row {self.name!r}: fit: temperature is of the backbone alone, expected no of=")
        if self.fit_overrides and not self.fit:
            raise RuacError(f"row {self.name!r}: fit_overrides: expected fit= as well")
        if len(set(self.seeds)) < len(self.seeds):
            raise RuacError(f"row {self.name!r}: seeds occur twice in {self.seeds}")


@dataclass
class SweepPlan:
    """One evaluation of the rows. rows: their names (none: all). replay: an earlier sweep of the plan, of which
    vanilla's clicks are repeated for every model. overrides: of the sweep's config."""

    name: str = "???"
    rows: list[str] = field(default_factory=list)
    replay: str | None = None
    overrides: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One training of one row, in a folder of its own."""

    name: str
    row: str
    config: str
    overrides: tuple[str, ...]
    folder: Path

    @property
    def export(self) -> Path:
        return self.folder / "export"

    @property
    def finished(self) -> bool:
        return (self.export / CONFIG).is_file()  # written last

    @property
    def begun(self) -> bool:
        return (self.folder / LAST).is_file()

    def settings(self) -> TrainConfig:
        """What the plan asks for; raises `RuacError` if that is impossible."""
        return load_config(TrainConfig, self.config, self.overrides)

    def differs(self) -> list[str]:
        """Names of the settings with which the folder's run was made otherwise."""
        made, asked = vars(load_record(TrainConfig, self.folder / "config.yaml")), vars(self.settings())
        return [name for name in asked if made[name] != asked[name]]


@dataclass(frozen=True)
class Fit:
    """One fit to a frozen model. kind: of `FITS`. made: its file, written last. run: the training it waits for."""

    name: str
    row: str
    kind: str
    overrides: tuple[str, ...]
    made: Path
    run: Run | None

    @property
    def finished(self) -> bool:
        return self.made.is_file()


@dataclass(frozen=True)
class Model:
    """One entry of a sweep. entry: its fields. run: its training, if any. score: as in `RowConfig`."""

    name: str
    row: str
    seed: int
    entry: dict[str, Any]
    run: Run | None
    score: str | None

    @property
    def files(self) -> list[Path]:
        """What it is made of: an export of its training or of a fit, a temperature of an older fit."""
        export, temperature = self.entry.get("export"), self.entry.get("temperature")
        exported = [Path(export) / CONFIG, Path(export) / WEIGHTS] if export else []
        return exported + ([Path(temperature)] if temperature else [])

    @property
    def ready(self) -> bool:
        return all(path.is_file() for path in self.files)


@dataclass
class PlanConfig:
    """source: data to train on, with its splits; the validation split is swept as a reference. domains: as in
    `SweepConfig`. overrides: of every training, before a row's own. processes: of every training and sweep (0: as
    many as there are GPUs, at least 1). models_per_sweep: loaded at a time. compare_with: rows that all others are
    compared with. replicates: of the bootstrap."""

    source: str = "???"
    train_split: str | None = None
    validation_split: str | None = None
    domains: list[str] = field(default_factory=list)
    backbone: str = "nano"
    out: str = "runs/reproduce"
    seeds: list[int] = field(default_factory=lambda: [0])
    overrides: list[str] = field(default_factory=list)
    rows: list[RowConfig] = field(default_factory=list)
    sweep_config: str = "configs/sweep/domains.yaml"
    sweeps: list[SweepPlan] = field(default_factory=list)
    models_per_sweep: int = 16
    cpu: bool = False
    processes: int = 0
    compare_with: list[str] = field(default_factory=lambda: [VANILLA])
    replicates: int = 2000

    def validate(self) -> None:
        names = [row.name for row in self.rows]
        trained = [row.name for row in self.rows if row.train]
        if not any(row.name == VANILLA and not (row.train or row.of or row.seeds) for row in self.rows):
            raise RuacError(f"rows: expected one named {VANILLA!r}, without train=, of= and seeds=")
        for key, found in (("rows", names), ("sweeps", [sweep.name for sweep in self.sweeps])):
            if len(set(found)) < len(found):
                raise RuacError(f"{key}: names occur twice in {found}")
        if not self.domains or not self.sweeps:
            raise RuacError("expected at least one entry under domains and under sweeps")
        if not self.seeds or min(self.processes, self.replicates) < 0 or self.models_per_sweep < 1:
            raise RuacError("expected seeds, processes and replicates of at least 0, models_per_sweep of at least 1")
        for row in self.rows:
            if row.of:
                known(row.of, trained, f"row {row.name!r}: of")
                if missing := set(row.seeds) - set(self._seeds(self._row(row.of))):
                    raise RuacError(f"row {row.name!r}: seeds: row {row.of!r} has no seed {min(missing)}")
        for index, sweep in enumerate(self.sweeps):
            if sweep.replay:
                known(sweep.replay, [s.name for s in self.sweeps[:index]], f"sweep {sweep.name!r}: replay")
            for name in sweep.rows:
                known(name, names, f"sweep {sweep.name!r}: rows")
        for name in self.compare_with:
            known(name, names, "compare_with")
        models = self.models()
        if len({model.name for model in models}) < len(models):
            raise RuacError("rows: a name with its seed equals another row's name")
        for model in models:
            config_from(ModelConfig, model.entry, f"row {model.row!r}: model")
        for run in {run.row: run for run in self.runs()}.values():  # the seed makes no difference
            try:
                run.settings()
            except RuacError as error:
                raise RuacError(f"row {run.row!r}: {error}") from error
        for sweep in self.sweeps:
            load_config(SweepConfig, self.sweep_file, self.sweep_overrides(sweep, models[:1], Path("sweep")))

    @property
    def sweep_file(self) -> Path:
        return _find(self.sweep_config)

    def runs(self) -> list[Run]:
        """Every training, the first seed of all rows first, so that a table of one seed is there early."""
        found: list[tuple[int, Run]] = []
        for row in self.rows:
            for place, seed in enumerate(self._seeds(row) if row.train else ()):
                found.append((place, self._run(row, seed)))
        return [run for _, run in sorted(found, key=lambda pair: pair[0])]

    def models(self) -> list[Model]:
        """Every entry of the sweeps, in the order of the rows, vanilla first."""
        found = []
        for row in sorted(self.rows, key=lambda row: row.name != VANILLA):
            origin = self._row(row.of) if row.of else row
            for seed in self._seeds(row):
                run = self._run(origin, seed) if origin.train else None
                name = row.name if seed is None else f"{row.name}-{seed}"
                fit = self._fit(row, seed) if row.fit else None
                entry = {"name": name} | ({"export": str(run.export)} if run else {"backbone": self.backbone})
                own = json.loads(json.dumps(row.model).replace("{seed}", str(seed)))
                if fit is not None:
                    entry = {"name": name, "export": str(fit.made.parent)}
                found.append(Model(name, row.name, seed or 0, entry | own, run, row.score))
        return found

    def sweep_settings(self, sweep: SweepPlan) -> list[str]:
        """What `sweep` gives to ruac sweep for any models."""
        reference = [f"{self.source}@{self.validation_split}"] if self.validation_split else []
        return _pairs({"domains": self.domains, "reference": reference}) + sweep.overrides

    def sweep_overrides(
        self, sweep: SweepPlan, models: list[Model], out: Path, *, replay: Path | None = None
    ) -> list[str]:
        """What ruac sweep is given to sweep `models` into `out`, repeating the clicks of folder `replay`."""
        given = {"models": [model.entry for model in models], "out": str(out), "cpu": self.cpu}
        if replay:
            given |= {"protocol.next_click": "replay", "replay": f"{replay}:{VANILLA}"}
        return _pairs(given) + self.sweep_settings(sweep)

    def _row(self, name: str) -> RowConfig:
        return next(row for row in self.rows if row.name == name)

    def _seeds(self, row: RowConfig) -> list[int | None]:
        if row.of and not row.seeds:
            return self._seeds(self._row(row.of))
        return row.seeds or (self.seeds if row.train else [None])

    def fits(self) -> list[Fit]:
        """Every fit, in the order of the rows."""
        return [self._fit(row, seed) for row in self.rows if row.fit for seed in self._seeds(row)]

    def _fit(self, row: RowConfig, seed: int | None) -> Fit:
        name = row.name if seed is None else f"{row.name}-{seed}"
        folder = Path(self.out) / "fits" / name
        run = self._run(self._row(row.of), seed) if row.of else None
        given = {"out": str(folder), "seed": seed or 0, "cpu": self.cpu}
        given |= {"export": str(run.export)} if run else {"backbone": self.backbone}
        if row.fit == "temperature":
            given["source"] = f"{self.source}@{self.validation_split}" if self.validation_split else self.source
        else:
            given |= {"source": self.source, "split": self.train_split}
        return Fit(name, row.name, row.fit, (*_pairs(given), *row.fit_overrides), folder / CONFIG, run)

    def _run(self, row: RowConfig, seed: int) -> Run:
        name = f"{row.name}-{seed}"
        folder = Path(self.out) / "runs" / name
        given = {"source": self.source, "train_split": self.train_split, "validation_split": self.validation_split}
        given |= {"backbone": self.backbone, "out": str(folder), "engine.seed": seed, "engine.cpu": self.cpu}
        overrides = (*_pairs(given), *self.overrides, *row.overrides)
        return Run(name, row.name, str(_find(row.train)), overrides, folder)


def known(name: str, names: list[str], where: str) -> None:
    """Raise `RuacError` with the nearest of `names` if `name` is none of them."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise RuacError(f"{where}: unknown name {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _find(path: str) -> Path:
    """A config, looked up from the working folder, then from the project's."""
    return Path(path) if Path(path).exists() else ROOT / path


def _pairs(values: dict[str, Any]) -> list[str]:
    """``key=value`` strings; JSON is YAML, and keeps spaces, commas and colons in paths."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]
