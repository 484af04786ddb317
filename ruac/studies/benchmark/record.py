"""Runs of the benchmark as files, and what changed between two of them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruac.base.errors import RuacError
from ruac.base.files import read_json, write_text
from ruac.base.provenance import environment
from ruac.studies.benchmark.rows import Row

FORMAT = 1
NOISE = 0.1  # of the same work on the same machine: a smaller change is none


def save_rows(path: Path, benchmarks: Mapping[str, Iterable[Row]]) -> None:
    """Rows by benchmark with what they were measured on: processor, cores, memory, load, versions and commit."""
    rows = {
        name: [
            {"name": row.name, "seconds": float(row.seconds), "spread": row.spread, "ratio": float(row.ratio)}
            | {"target": row.target, "verdict": row.verdict, "note": row.note}
            for row in found
        ]
        for name, found in benchmarks.items()
    }
    content = {"format": FORMAT, "machine": machine(), "environment": environment(), "benchmarks": rows}
    write_text(path, json.dumps(content, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Processor, cores, GiB of memory, and the load of the last minute, which tells whether others were at work."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"processor": model, "cores": os.cpu_count(), "memory_gib": round(pages / 2**30, 1), "load": load}


def compare(old: Path, new: Path) -> str:
    """A table of the ratios that both hold and that differ by more than `NOISE`, of verdicts that changed, and what one
    of them lacks. Raises `RuacError` for a file that `save_rows` did not write."""
    before, after = (_ratios(path) for path in (old, new))
    lines = ["| name | old | new | change | verdict |", "|---|---|---|---|---|"]
    same = 0
    for name in before.keys() & after.keys():
        (ratio, verdict), (now, judged) = before[name], after[name]
        if abs(now - ratio) <= NOISE * abs(ratio) and verdict == judged:
            same += 1
            continue
        change = f"{now / ratio - 1:+.0%}" if ratio else ""
        lines.append(f"| {name} | {ratio:.3g} | {now:.3g} | {change} | {_turn(verdict, judged)} |")
    lines[2:] = sorted(lines[2:])
    lines += ["", f"{same} of {len(before.keys() & after.keys())} ratios differ by at most {NOISE:.0%}."]
    for path, names in ((old, before.keys() - after.keys()), (new, after.keys() - before.keys())):
        lines += [f"Only in {path}: {name}" for name in sorted(names)]
    return "\n".join(lines)


def _turn(old: str, new: str) -> str:
    return new if old == new else f"{old or 'none'} -> {new or 'none'}"


def _ratios(path: Path) -> dict[str, tuple[float, str]]:
    try:
        content = read_json(path)
        if content["format"] != FORMAT:
            raise RuacError(f"{path}: format {content['format']}, expected {FORMAT}")
        return {
            f"{name}: {row['name']}": (float(row["ratio"]), str(row["verdict"]))
            for name, rows in content["benchmarks"].items()
            for row in rows
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise RuacError(f"{path}: expected what ruac benchmark --json writes, found {what}") from error
