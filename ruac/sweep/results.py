"""What a sweep leaves behind: one row per object, one per domain, sums, panels and a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ruac.data.sample import MaskDataset, Record
from ruac.errors import RuacError
from ruac.export import fingerprint
from ruac.files import atomic_path, write_text
from ruac.metrics.curves import rss
from ruac.model import UncertainSam
from ruac.provenance import environment
from ruac.sweep.chunks import chunk_path, load_chunk, merge
from ruac.sweep.evaluate import Scores, answer_image

if TYPE_CHECKING:
    from ruac.sweep.runner import SweepConfig

OBJECTS, DOMAINS, MANIFEST = "objects.parquet", "domains.csv", "manifest.json"


def write_results(
    out: Path,
    config: SweepConfig,
    models: dict[str, UncertainSam],
    domains: dict[str, MaskDataset],
    chunks: dict[str, int],
    key: str,
) -> None:
    """Merge the chunks of all domains and write the result folder.

    Raises `RuacError` if a chunk is missing, broken or from another sweep.
    """
    rows: list[dict] = []
    table: list[dict] = []
    for domain in domains:
        total = Scores()
        for index in range(chunks[domain]):
            merge(total, load_chunk(chunk_path(out, domain, index), key))
        rows += total.rows
        table += domain_rows(domain, total)
        for (model, score, region), sums in total.sums.items():
            with atomic_path(out / "sums" / f"{model}.{score}.{region}.{domain}.npz") as path, open(path, "wb") as file:
                np.savez_compressed(file, **sums.to_arrays())
    objects = pd.DataFrame(rows)
    with atomic_path(out / OBJECTS) as path:
        objects.to_parquet(path, index=False)
    write_text(out / DOMAINS, pd.DataFrame(table).to_csv(index=False))
    _write_panels(out, config, models, domains, objects)
    _write_manifest(out, config, models, domains, objects, key)


def domain_rows(domain: str, scores: Scores) -> list[dict]:
    """One row per (model, score, region): mean J and F over objects, then every pixel metric."""
    frame = pd.DataFrame(scores.rows)
    table = []
    for (model, score, region), sums in scores.sums.items():
        own = frame[frame.model == model]
        j, f = own.j.mean(), own.f.mean()
        metrics = sums.compute()
        terms = {name: metrics[name] for name in ("ece", "p_acc_cert", "p_unc_inacc")}
        head = {"domain": domain, "model": model, "score": score, "region": region}
        counts = {"images": own.image.nunique(), "objects": len(own)}
        table.append(head | counts | {"j": j, "f": f, "jf": (j + f) / 2} | metrics | {"rss": rss(miou=j, **terms)})
    return table


def read_clicks(spec: str) -> Callable[[str, Record], tuple[np.ndarray, np.ndarray]]:
    """Stored clicks of ``FOLDER:MODEL``, as a function of domain and record.

    Raises `RuacError` for an unknown folder or model, or an object without stored clicks.
    """
    folder, _, model = spec.rpartition(":")
    path = Path(folder) / OBJECTS
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise RuacError(f"replay {spec!r}: {path} cannot be read; expected FOLDER:MODEL of a finished sweep") from error
    frame = frame[frame.model == model].set_index(["domain", "image", "object"])
    if not len(frame):
        raise RuacError(f"replay {spec!r}: no model {model!r} in {path}")

    def clicks(domain: str, record: Record) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for key in record.object_ids:
            if (domain, record.id, key) not in frame.index:
                raise RuacError(f"replay {spec!r}: no clicks for {domain}/{record.id}/{key}")
            found.append(frame.loc[(domain, record.id, key)])
        points = np.stack([np.asarray(row.points, dtype=float).reshape(-1, 2) for row in found])
        return points, np.stack([np.asarray(row.labels, dtype=int) for row in found])

    return clicks


def _write_manifest(
    out: Path,
    config: SweepConfig,
    models: dict[str, UncertainSam],
    domains: dict[str, MaskDataset],
    objects: pd.DataFrame,
    key: str,
) -> None:
    from dataclasses import asdict

    from ruac.sweep.runner import dataset_hash

    sources = {entry.name: entry.export or entry.backbone for entry in config.models}
    counts = objects.drop_duplicates(["domain", "image", "object"]).groupby("domain")
    content = {
        "key": key,
        "protocol": asdict(config.protocol) | {"replay": config.replay, "limit": config.limit},
        "models": [
            {
                "name": name,
                "kind": "vanilla" if model.head is None else model.head.config.posterior,
                "checkpoint": sources.get(name, model.backbone.name),
                "sha256": fingerprint(model),
            }
            for name, model in models.items()
        ],
        "domains": [
            {
                "name": name,
                "path": str(Path(dataset.records[0].path).parent),
                "images": int(counts.get_group(name).image.nunique()),
                "objects": len(counts.get_group(name)),
                "sha256": dataset_hash(dataset),
            }
            for name, dataset in domains.items()
        ],
        "environment": environment(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    write_text(out / MANIFEST, json.dumps(content, indent=2) + "\n")


def _write_panels(
    out: Path,
    config: SweepConfig,
    models: dict[str, UncertainSam],
    domains: dict[str, MaskDataset],
    objects: pd.DataFrame,
) -> None:
    """Pictures of the worst, best and most overconfident objects of the last model, answered again."""
    model = list(models)[-1]
    clicks = read_clicks(config.replay) if config.replay else None
    index = []
    for domain, dataset in domains.items():
        rows = objects[(objects.domain == domain) & (objects.model == model)]
        overconfidence = rows.band_error - rows.band_uncertainty
        cases = {
            "worst": rows.sort_values("j", kind="stable").head(config.panels),
            "best": rows.sort_values("j", kind="stable").tail(config.panels),
            "overconfident": rows.loc[overconfidence.sort_values(kind="stable").tail(config.panels).index],
        }
        places = {record.id: place for place, record in enumerate(dataset.records)}
        rank = 0
        for case, chosen in cases.items():
            for row in chosen.itertuples():
                sample = dataset[places[row.image]]
                replay = None if clicks is None else clicks(domain, sample.record)
                which = sample.record.object_ids.index(row.object)
                answers = answer_image(models, sample, config.protocol, replay=replay)
                arrays = {"image": sample.image, "truth": sample.masks[which]}
                for name, answer in answers.items():
                    uncertainty = next(iter(answer.uncertainty.values()))[which]
                    arrays[f"mask.{name}"] = answer.masks[which]
                    arrays[f"uncertainty.{name}"] = (uncertainty * 255).round().byte().numpy()
                    own = objects[(objects.domain == domain) & (objects.image == row.image)]
                    own = own[(own.object == row.object) & (own.model == name)]
                    arrays[f"j.{name}"] = np.array(own.j.iloc[0])
                arrays["points"], arrays["labels"] = answers[model].points[which], answers[model].labels[which]
                file = Path("panels") / domain / f"{rank}.npz"
                with atomic_path(out / file) as path, open(path, "wb") as stream:
                    np.savez_compressed(stream, **arrays)
                entry = {"domain": domain, "image": row.image, "object": row.object, "file": str(file), "case": case}
                index.append(entry | {"models": list(models)})
                rank += 1
    write_text(out / "panels" / "index.json", json.dumps(index, indent=1) + "\n")
