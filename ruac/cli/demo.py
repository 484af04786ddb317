"""Try the embedded models in a browser: click on a picture, see mask, doubt, bounds and where to click next.

Needs the extra demo. The page is served to this machine only, and asks no other for anything.
"""

from __future__ import annotations

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac demo --port 7860"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--device", help="cpu, cuda or mps (default: the best there is)")
    parser.add_argument("--browser", action="store_true", help="open the page in the browser")
    args = parser.parse_args(argv)

    from importlib.util import find_spec

    from ruac.base.errors import RuacError

    if find_spec("gradio") is None:
        raise RuacError("demo: needs gradio; pip install 'ruac[demo]'")
    from ruac.demo.page import serve

    serve(port=args.port, device=args.device, browser=args.browser)
