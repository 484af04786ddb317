"""What an experiment leaves in its folder: NAME.csv, NAME.json, NAME.png, and the record of the run."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ruac.base.files import atomic_path, write_text
from ruac.base.provenance import environment, save_record


def write_outputs(out: str | Path, name: str, *, config: Any, table: pd.DataFrame, figure: Figure, facts: dict) -> Path:
    """Write the table as CSV, table, config, environment and `facts` as JSON, and the figure as PNG; each atomically.

    facts: what else the numbers depend on, such as hashes of models and data. Returns the folder.
    """
    out = Path(out)
    write_text(out / f"{name}.csv", table.to_csv(index=False))
    content = {"experiment": name, "config": asdict(config)} | facts
    content |= {"environment": environment(), "created": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    content["rows"] = json.loads(table.to_json(orient="records", double_precision=15))  # nan becomes null
    write_text(out / f"{name}.json", json.dumps(content, indent=1) + "\n")
    with atomic_path(out / f"{name}.png") as path:
        figure.savefig(path, format="png", dpi=150, bbox_inches="tight")
    save_record(out, config)
    return out
