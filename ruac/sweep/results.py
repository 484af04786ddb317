"""What a sweep leaves behind: one row per object, one per domain, sums, panels and a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ruac.data.sample import MaskDataset, Record
from ruac.errors import RuacError
from ruac.export import fingerprint
from ruac.files import atomic_path, sha256, write_text
from ruac.metrics.curves import rss
from ruac.model import UncertainSam
from ruac.prompts import BOX_FIRST
from ruac.provenance import environment
from ruac.sweep.chunks import chunk_path, load_chunk, merge
from ruac.sweep.evaluate import Scores, answer_image, objects_of
from ruac.sweep.protocol import ProtocolConfig

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
    *,
    references: list[str],
) -> None:
    """Merge the chunks of all domains and write the result folder. references: the domains that are not unseen.

    Raises `RuacError` if a chunk is missing, broken or from another sweep.
    """
    frames: list[pd.DataFrame] = []
    table: list[dict] = []
    for domain in domains:
        total = Scores()
        for index in range(chunks[domain]):
            merge(total, load_chunk(chunk_path(out, domain, index), key))
        frames.append(pd.DataFrame(total.rows))
        table += domain_rows(domain, total)
        for (model, score, region), sums in total.sums.items():
            with atomic_path(out / "sums" / f"{model}.{score}.{region}.{domain}.npz") as path, open(path, "wb") as file:
                np.savez_compressed(file, **sums.to_arrays())
    objects = pd.concat(frames, ignore_index=True)
    with atomic_path(out / OBJECTS) as path:
        objects.to_parquet(path, index=False)
    frame = pd.DataFrame(table)
    frame.insert(1, "reference", frame.domain.isin(references))
    write_text(out / DOMAINS, frame.to_csv(index=False))
    _write_panels(out, config, models, domains, objects)
    _write_manifest(out, config, models, domains, objects, key, references)


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


def dataset_hash(dataset: MaskDataset) -> str:
    """SHA-256 over the ids of images and objects, the images' sizes in bytes and the content of the annotation files.

    Nothing is decoded. Raises `RuacError` for a file that is missing.
    """
    digest = hashlib.sha256()
    try:
        for record in dataset.records:
            digest.update(json.dumps([record.id, record.object_ids, record.path.stat().st_size]).encode())
        for path in dict.fromkeys(path for record in dataset.records for path in record.annotations):
            digest.update(sha256(path).encode())
    except OSError as error:
        raise RuacError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def replay_hash(spec: str) -> str:
    """SHA-256 of the stored clicks of ``FOLDER:MODEL``, with the model's name. Raises `RuacError` if there are none."""
    path, model = _replay_source(spec)
    if not path.is_file():
        raise RuacError(f"replay {spec!r}: {path} not found; expected FOLDER:MODEL of a finished sweep")
    return f"{sha256(path)}:{model}"


def read_clicks(spec: str, protocol: ProtocolConfig) -> Callable[[str, Record], tuple[np.ndarray, np.ndarray]]:
    """Stored clicks of ``FOLDER:MODEL``, as a function of domain and record: points ``[N, P, 2]``, labels ``[N, P]``.

    Raises `RuacError` for an unknown folder or model, fewer clicks than `protocol` has, boxes where it
    has none (or the other way round), or an object without stored clicks.
    """
    path, model = _replay_source(spec)
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise RuacError(f"replay {spec!r}: {path} cannot be read; expected FOLDER:MODEL of a finished sweep") from error
    frame = frame[frame.model == model]
    if not len(frame):
        raise RuacError(f"replay {spec!r}: no model {model!r} in {path}")
    first = np.asarray(frame.labels.iloc[0])
    if (first[0] == BOX_FIRST) != protocol.box:
        raise RuacError(f"replay {spec!r}: made with protocol.box={not protocol.box}, expected {protocol.box}")
    if (stored := len(first) - protocol.box) < protocol.clicks:  # a box is two points, but one prompt
        raise RuacError(f"replay {spec!r}: has {stored} clicks, fewer than protocol.clicks={protocol.clicks}")
    places = zip(frame.domain, frame.image, frame.object, strict=True)
    stored_clicks = dict(zip(places, zip(frame.points, frame.labels, strict=True), strict=True))

    def clicks(domain: str, record: Record) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for key in record.object_ids:
            if (domain, record.id, key) not in stored_clicks:
                raise RuacError(f"replay {spec!r}: no clicks for {domain}/{record.id}/{key}")
            found.append(stored_clicks[domain, record.id, key])
        points = np.stack([np.asarray(points, dtype=float).reshape(-1, 2) for points, _ in found])
        return points, np.stack([np.asarray(labels, dtype=int) for _, labels in found])

    return clicks


def _replay_source(spec: str) -> tuple[Path, str]:
    folder, _, model = spec.rpartition(":")
    return Path(folder) / OBJECTS, model


def _write_manifest(
    out: Path,
    config: SweepConfig,
    models: dict[str, UncertainSam],
    domains: dict[str, MaskDataset],
    objects: pd.DataFrame,
    key: str,
    references: list[str],
) -> None:
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
                "reference": name in references,
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
    clicks = read_clicks(config.replay, config.protocol) if config.replay else None
    index = []
    for domain, dataset in domains.items():
        every = objects[objects.domain == domain]
        rows = every[every.model == model]
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
                which = sample.record.object_ids.index(row.object)
                sample = objects_of(sample, slice(which, which + 1))
                replay = None if clicks is None else clicks(domain, sample.record)
                answers = answer_image(models, sample, config.protocol, replay=replay)
                own = every[(every.image == row.image) & (every.object == row.object)].set_index("model")
                arrays = {"image": sample.image, "truth": sample.masks[0]}
                for name, answer in answers.items():
                    uncertainty = next(iter(answer.uncertainty.values()))[0]
                    arrays[f"mask.{name}"] = answer.masks[0]
                    arrays[f"uncertainty.{name}"] = (uncertainty * 255).round().byte().cpu().numpy()
                    arrays[f"j.{name}"] = np.array(own.j[name])
                arrays["points"], arrays["labels"] = answers[model].points[0], answers[model].labels[0]
                file = Path("panels") / domain / f"{rank}.npz"
                with atomic_path(out / file) as path, open(path, "wb") as stream:
                    np.savez_compressed(stream, **arrays)
                entry = {"domain": domain, "image": row.image, "object": row.object, "file": str(file), "case": case}
                index.append(entry | {"models": list(models)})
                rank += 1
    write_text(out / "panels" / "index.json", json.dumps(index, indent=1) + "\n")
