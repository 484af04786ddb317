#!/usr/bin/env python
"""Download official SAM 2.1 checkpoints, verified by SHA-256; an interrupted download is continued.

python tools/fetch_checkpoint.py tiny
python tools/fetch_checkpoint.py base_plus large --folder /data/checkpoints
"""

import argparse

from ruac.backbone.fetch import fetch
from ruac.backbone.names import BASE_URL, OFFICIAL, official
from ruac.base.errors import run_tool


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="+", metavar="size", help=", ".join(OFFICIAL))
    parser.add_argument("--folder", default="checkpoints", help="where to put the files (default: %(default)s)")
    parser.add_argument("--base-url", default=BASE_URL, help="a mirror with the same file names (default: %(default)s)")
    arguments = parser.parse_args(argv)
    entries = [official(size) for size in arguments.sizes]
    for entry in entries:
        print(f"{fetch(entry, arguments.folder, base_url=arguments.base_url)}: SHA-256 verified")


if __name__ == "__main__":
    run_tool(main)
