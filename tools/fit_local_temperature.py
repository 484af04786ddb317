"""``ruac fit-local-temperature`` as a script: tools/fit_local_temperature.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.fit_local_temperature import main

if __name__ == "__main__":
    run_tool(main)
