"""``ruac fit-local-temperature`` as a script: tools/fit_look_reader.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.fit_look_reader import main

if __name__ == "__main__":
    run_tool(main)
