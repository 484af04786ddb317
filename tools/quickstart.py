"""``ruac quickstart`` as a script: tools/quickstart.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.quickstart import main

if __name__ == "__main__":
    run_tool(main)
