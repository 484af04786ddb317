"""Download official SAM 2.1 checkpoints, verified by SHA-256; an interrupted download is continued."""

from __future__ import annotations

from ruac.cli.parser import verb_parser

SIZES = ("tiny", "small", "base_plus", "large")  # as ruac.backbone.names has them, which brings torch
EXAMPLE = "ruac fetch-checkpoint base_plus large --folder /data/checkpoints"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("sizes", nargs="+", metavar="size", help=", ".join(SIZES))
    parser.add_argument("--folder", default="checkpoints", help="where to put the files (default: %(default)s)")
    parser.add_argument("--base-url", help="a mirror with the same file names (default: Meta's own address)")
    arguments = parser.parse_args(argv)

    from ruac.backbone.fetch import fetch
    from ruac.backbone.names import BASE_URL, official

    entries = [official(size) for size in arguments.sizes]
    for entry in entries:
        print(f"{fetch(entry, arguments.folder, base_url=arguments.base_url or BASE_URL)}: SHA-256 verified")
