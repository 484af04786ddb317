"""Write procedural scenes as COCO folders: the source domain and every shifted one.

Writes ``OUT/source`` (with train.txt and val.txt) and ``OUT/domains/<shift>``. Takes an optional
YAML file (--config) and key=value pairs; the keys are the fields of `SceneSets`.
"""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac make-scenes out=scenes seed=0 train=2000 val=200 domain=200 'shifts=[fog,rain]' scene.side=256"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("--config", type=Path, help="YAML file with fields of SceneSets")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args(argv)

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ruac.base.config import load_config
    from ruac.data.synthetic.scene_sets import SceneSets, write_scene_sets

    sets = load_config(SceneSets, arguments.config, arguments.overrides)
    columns = (TextColumn("{task.description:14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        tasks: dict[str, int] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)

        write_scene_sets(sets, progress=show)
    print(f"wrote {sets.out}")
