"""A sweep's result folder, read and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ruac.base.errors import RuacError, brief
from ruac.base.files import read_json
from ruac.evaluation.results.names import COLUMNS, REGIONS, Column
from ruac.evaluation.results.schema import DOMAINS, KEYS, MANIFEST, OBJECTS

SCORES = {"iou": "1 - predicted IoU"}  # any other is called what it is
COUNTS = ("images", "objects")
UNSHOWN = ("failed",)
_CORRUPTION_KEYS = ("of", "name", "severity", "level")
_OBJECT_COLUMNS = ("domain", "image", "object", "model", "j", "predicted_iou")


@dataclass(frozen=True)
class Entry:
    """A model with one of its uncertainty scores: a curve, a table column."""

    model: str
    score: str
    label: str
    color: int
    style: int

    @property
    def classes(self) -> str:
        return f"m{self.color} d{self.style}"


@dataclass(frozen=True)
class Corruption:
    """What was done to a domain. of: the domain as it was. level: place of the severity, weak to strong, from 1."""

    of: str
    name: str
    severity: str
    level: int


@dataclass(frozen=True)
class Results:
    """A sweep's folder, read and checked.

    values: indexed by (domain, model, score, region), numeric columns only. every_object: of all domains.
    references: data sets that are no unseen domains, shown but left out of every mean and count. corrupted: by name,
    domains that are others corrupted, shown as curves over severity and nowhere else.
    """

    folder: Path
    manifest: dict
    values: pd.DataFrame
    every_object: pd.DataFrame
    references: list[str]
    corrupted: dict[str, Corruption]

    @cached_property
    def models(self) -> list[str]:
        return [m["name"] for m in self.manifest["models"]]

    @cached_property
    def domains(self) -> list[str]:
        """The unseen ones."""
        found = dict.fromkeys(self.values.index.get_level_values("domain"))
        return [d for d in found if d not in self.references and d not in self.corrupted]

    @cached_property
    def objects(self) -> pd.DataFrame:
        """Of the unseen domains."""
        return self.every_object[self.every_object.domain.isin(self.domains)]

    @cached_property
    def baseline(self) -> str:
        """The first vanilla model, else the first."""
        kinds = [m.get("kind") for m in self.manifest["models"]]
        return self.models[kinds.index("vanilla") if "vanilla" in kinds else 0]

    @cached_property
    def regions(self) -> list[str]:
        found = dict.fromkeys(self.values.index.get_level_values("region"))
        return [r for r in REGIONS if r in found] + [r for r in found if r not in REGIONS]

    @cached_property
    def columns(self) -> list[Column]:
        known = [c for key, c in COLUMNS.items() if key in self.values]
        return known + [Column(k, k) for k in self.values if k not in COLUMNS and k not in COUNTS + UNSHOWN]

    @cached_property
    def entries(self) -> list[Entry]:
        pairs = dict.fromkeys(zip(*(self.values.index.get_level_values(k) for k in ("model", "score")), strict=True))
        entries = []
        for color, model in enumerate(self.models):
            scores = [score for m, score in pairs if m == model]
            for style, score in enumerate(scores):
                label = model if len(scores) == 1 else f"{model}, {SCORES.get(score, score.replace('_', ' '))}"
                entries.append(Entry(model, score, label, color % 8, style % 3))
        return entries

    def entries_of(self, column: Column) -> list[Entry]:
        """The entries among which `column` is compared: one per model where its scores share all values.

        Masks, probabilities and what follows from them alone (J, ECE, ...) do not depend on the uncertainty score.
        """
        kept = []
        for model in self.models:
            own = [entry for entry in self.entries if entry.model == model]
            rows = [[self.series(column, entry, region) for region in self.regions] for entry in own]
            shared = all(np.array_equal(row, rows[0], equal_nan=True) for row in rows)
            kept += [replace(own[0], label=model)] if shared else own
        return kept

    def series(self, column: Column, entry: Entry, region: str, domains: list[str] | None = None) -> np.ndarray:
        """The metric per domain, by default per unseen one, nan where there is none. ``[domains]``."""
        domains = self.domains if domains is None else domains
        rows = [self._rows.get((domain, entry.model, entry.score, region)) for domain in domains]
        values = self._columns[column.key]
        return np.array([np.nan if row is None else values[row] for row in rows])

    @cached_property
    def _rows(self) -> dict[tuple, int]:
        return {key: row for row, key in enumerate(self.values.index)}

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        return {key: self.values[key].to_numpy() for key in self.values}


def load_results(folder: Path) -> Results:
    """Read and check a sweep's folder. Raises `RuacError` naming what is missing."""
    if not folder.is_dir():
        raise RuacError(f"{folder}: results folder not found")
    manifest = _manifest(folder / MANIFEST, {"protocol": dict, "models": list, "domains": list, "environment": dict})
    path = folder / DOMAINS
    table = _read(path, read_table)
    _need(path, table, KEYS)
    values = table.set_index(list(KEYS)).select_dtypes("number").astype(float)
    if table.reference.all() or values.empty:
        raise RuacError(f"{path}: expected at least one row of a domain and one numeric column")
    if values.index.has_duplicates:
        raise RuacError(f"{path}: more than one row for {values.index[values.index.duplicated()][0]}")
    listed, found = {m["name"] for m in manifest["models"]}, set(values.index.get_level_values("model"))
    if listed != found:
        name = sorted(listed ^ found)[0]
        lacking = DOMAINS if name in listed else MANIFEST
        raise RuacError(f"{folder / lacking}: model '{name}' is missing")

    path = folder / OBJECTS
    objects = _read(path, pd.read_parquet)
    _need(path, objects, _OBJECT_COLUMNS)
    corrupted = _corrupted(folder / MANIFEST, manifest)
    references = [domain for domain in table.domain[table.reference].unique() if domain not in corrupted]
    return Results(folder, manifest, values, objects, references, corrupted)


def corrupted_names(folder: Path) -> set[str]:
    """Domains that are others corrupted, as the manifest says; none without one. A name alone says nothing of it."""
    path = folder / MANIFEST
    if not path.is_file():
        return set()
    return set(_corrupted(path, _manifest(path, {"domains": list})))


def _manifest(path: Path, kinds: dict[str, type]) -> dict:
    """What it says, with `kinds` under their keys; models and domains have names."""
    manifest = read_json(path)
    for key, kind in kinds.items():
        if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind):
            raise RuacError(f"{path}: missing key '{key}', expected a {kind.__name__}")
    for key in kinds.keys() & {"models", "domains"}:
        for index, item in enumerate(manifest[key]):
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                raise RuacError(f"{path}: {key}[{index}]: missing key 'name', expected a text")
    return manifest


def _corrupted(path: Path, manifest: dict) -> dict[str, Corruption]:
    found = {}
    for index, domain in enumerate(manifest["domains"]):
        if (entry := domain.get("corruption")) is None:
            continue
        if not isinstance(entry, dict) or set(entry) != set(_CORRUPTION_KEYS):
            expected = ", ".join(_CORRUPTION_KEYS)
            raise RuacError(f"{path}: domains[{index}]: 'corruption' is {entry!r}, expected the keys {expected}")
        found[domain["name"]] = Corruption(**entry)
    return found


def read_table(path: Path) -> pd.DataFrame:
    """``domains.csv`` with the bool column "reference"; without it in the file, every domain is an unseen one."""
    # Only a metric can be missing: a domain that is called "NA" or "nan" keeps its name.
    columns = pd.read_csv(path, nrows=0).columns
    missing = {column: ["", "nan", "NaN"] for column in columns if column not in KEYS}
    table = pd.read_csv(path, dtype=dict.fromkeys(KEYS, str), keep_default_na=False, na_values=missing)
    table["reference"] = table["reference"].eq(True) if "reference" in table else False
    return table


def _read(path: Path, reader):
    try:
        return reader(path)
    except FileNotFoundError:
        raise RuacError(f"{path}: not found") from None
    except RuacError:
        raise
    except Exception as error:  # pandas and Arrow have many kinds of errors for what is damaged
        raise RuacError(f"{path}: cannot be read: {brief(error)}") from error


def _need(path: Path, table: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [c for c in columns if c not in table]
    if missing:
        raise RuacError(f"{path}: missing column '{missing[0]}'; found {', '.join(map(str, table.columns))}")
