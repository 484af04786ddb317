"""``ruac make-scenes`` as a script: tools/make_scenes.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.make_scenes import main

if __name__ == "__main__":
    run_tool(main)
