"""``ruac pseudo-label`` as a script: tools/pseudo_label.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.pseudo_label import main

if __name__ == "__main__":
    run_tool(main)
