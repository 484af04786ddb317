"""``ruac fit-temperature`` as a script: tools/fit_temperature.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.fit_temperature import main

if __name__ == "__main__":
    run_tool(main)
