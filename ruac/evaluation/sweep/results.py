"""What a sweep leaves behind: one row per object, one per domain, sums and a manifest."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow.parquet as pq

from ruac.base.arrays import save_arrays
from ruac.base.errors import RuacError
from ruac.base.files import atomic_path, read_json, write_text
from ruac.base.provenance import environment
from ruac.data.identity import hash_names
from ruac.data.synthetic.corruptions import CorruptedDataset
from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.metrics.certainty import rss
from ruac.evaluation.results.schema import BOUNDS, DOMAINS, MANIFEST, OBJECTS
from ruac.evaluation.sweep.chunks import Names, finished_images
from ruac.evaluation.sweep.merge import merge_chunks, open_rows
from ruac.evaluation.sweep.methods import is_vanilla, mark
from ruac.evaluation.sweep.opened import Sweep
from ruac.evaluation.sweep.panels import Panel, choose_panels
from ruac.evaluation.sweep.replay import replay_hash
from ruac.inference.export import fingerprint
from ruac.inference.model import UncertainSam


class Merged(NamedTuple):
    """counts: images and objects of each domain. panels: to be written, image by image."""

    counts: dict[str, dict[str, int]]
    panels: list[list[Panel]]


def merge_results(sweep: Sweep, failed: list[dict[str, str]]) -> Merged:
    """Merge the chunks of all domains and write their rows, sums and table.

    failed: "domain", "image", "path" and "error" of those
    that could not be read. A domain of which nothing could be read has no row; the manifest tells.

    Raises `RuacError` if a chunk is broken or from another sweep, if an image is neither in a chunk nor failed, or
    if every image failed.
    """
    out, lost = sweep.out, Counter(failure["domain"] for failure in failed)
    table, merged = [], Merged({}, [])
    with atomic_path(out / OBJECTS) as path, open_rows(path) as writer:
        for domain in sweep.domains:
            if (found := _merge(sweep, domain, lost[domain], writer)) is None:
                continue
            rows, sums = found
            table += domain_rows(domain, rows, sums, failed=lost[domain])
            merged.panels.extend(choose_panels(sweep, domain, rows))
            own = rows[rows.model == rows.model[0]]
            merged.counts[domain] = {"images": own.image.nunique(), "objects": len(own)}
        if not table:
            raise RuacError(f"none of {len(failed)} images could be read; the first: {failed[0]['error']}")
    frame = pd.DataFrame(table)
    frame.insert(1, "reference", frame.domain.isin(sweep.references))
    write_text(out / DOMAINS, frame.to_csv(index=False))
    return merged


def _merge(
    sweep: Sweep, domain: str, lost: int, writer: pq.ParquetWriter
) -> tuple[pd.DataFrame, dict[Names, ReliabilitySums]] | None:
    """Write rows and sums of a domain; returns what `merge_chunks` does, or None without a readable image."""
    out, names = sweep.out, sweep.names[domain]
    done = finished_images(out, domain, sweep.key, names)
    if missing := len(names) - len(done) - lost:
        raise RuacError(f"{out}: {missing} images of {domain!r} are in no chunk; sweep again to add them")
    if not done:
        return None
    rows, sums = merge_chunks(done, [image for image in names if image in done], sweep.key, writer)
    save_sums(out, domain, sums)
    return rows, sums


def save_sums(out: Path, domain: str, sums: dict[Names, ReliabilitySums]) -> None:
    """One file for each model, score and region."""
    for (model, score, region), own in sums.items():
        with atomic_path(out / "sums" / f"{model}.{score}.{region}.{domain}.npz") as path, open(path, "wb") as file:
            save_arrays(file, own.to_arrays())


def domain_rows(domain: str, rows: pd.DataFrame, sums: dict[Names, ReliabilitySums], *, failed: int = 0) -> list[dict]:
    """One row per (model, score, region): mean J and F over objects, then every pixel metric. failed: images."""
    table = []
    for (model, score, region), own_sums in sums.items():
        own = rows[rows.model == model]
        j, f = own.j.mean(), own.f.mean()
        metrics = own_sums.compute()
        terms = {"ece": metrics["ece"]} | {name: metrics[f"{name}_image"] for name in ("p_acc_cert", "p_unc_inacc")}
        head = {"domain": domain, "model": model, "score": score, "region": region}
        counts = {"images": own.image.nunique(), "objects": len(own), "failed": failed}
        numbers = {"j": j, "f": f, "jf": (j + f) / 2} | metrics | {"rss": rss(miou=j, **terms)} | bound_means(own)
        table.append(head | counts | numbers)
    return table


def bound_means(rows: pd.DataFrame) -> dict[str, float]:
    """What conformal bounds keep in a domain and how large they are; nothing where `rows` have none.

    Shares are means over pictures of the means over their objects, since the picture is the exchangeable unit; sizes
    are medians over objects, since a small object's outer mask may be the whole picture.
    """
    if "coverage" not in rows or rows.coverage.isna().all():
        return {}
    return {
        key: rows[key].median() if key.endswith("size") else rows.groupby("image", sort=False)[key].mean().mean()
        for key in BOUNDS
    }


def unreadable(out: Path) -> list[str]:
    """A line for each image that a finished sweep could not read, after one that counts them; none if there is none."""
    failed = read_json(out / MANIFEST)["failed"]
    lines = [e if (e := entry["error"]).startswith(entry["path"]) else f"{entry['path']}: {e}" for entry in failed]
    return [f"{out}: {len(lines)} images could not be read:", *lines] if lines else []


def finish_results(sweep: Sweep, merged: Merged, failed: list[dict[str, str]]) -> None:
    """List the panels, all of them written, and write the manifest, with which a sweep is finished."""
    order = {domain: place for place, domain in enumerate(sweep.domains)}
    panels = sorted(chain(*merged.panels), key=lambda panel: (order[panel.entry["domain"]], panel.rank))
    index = [panel.entry for panel in panels]
    write_text(sweep.out / "panels" / "index.json", json.dumps(index, indent=1) + "\n")
    config, none = sweep.config, {"images": 0, "objects": 0}
    entries = {entry.name: entry for entry in config.models}
    lost = Counter(failure["domain"] for failure in failed)
    content = {
        "key": sweep.key,
        "protocol": asdict(config.protocol)
        | {name: getattr(config, name) for name in ("replay", "limit", "native_splits", "native_seed", "orientation")}
        | {"replay_sha256": config.replay and replay_hash(config.replay)},
        "models": [
            {
                "name": name,
                "kind": _kind(model),
                "checkpoint": (entry.export or entry.backbone) if entry else model.backbone.name,
                "entry": entry and asdict(entry),
                "sha256": fingerprint(model),
                "calibration": model.calibrator and asdict(model.calibrator.origin) | {"kind": model.calibrator.kind},
            }
            for name, model in sweep.models.items()
            for entry in [entries.get(name.removesuffix(mark(model)))]
        ],
        "domains": [
            {
                "name": name,
                "reference": name in sweep.references,
                "path": str(Path(dataset.records[0].path).parent),
                **merged.counts.get(name, none),
                "failed": lost[name],
                "sha256": hash_names(sweep.names[name]),
                "corruption": dataset.corruption if isinstance(dataset, CorruptedDataset) else None,
            }
            for name, dataset in sweep.domains.items()
        ],
        "failed": sorted(failed, key=lambda failure: (list(sweep.domains).index(failure["domain"]), failure["image"])),
        "environment": environment(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    write_text(sweep.out / MANIFEST, json.dumps(content, indent=2) + "\n")


def _kind(model: UncertainSam) -> str:
    if is_vanilla(model):
        return "vanilla"
    if model.calibrator is not None:
        return model.calibrator.kind
    return "unccorr" if model.head is None else model.head.config.posterior
