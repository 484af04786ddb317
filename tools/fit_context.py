"""The old name of tools/fit_local_temperature.py."""

from ruac.base.errors import run_tool
from ruac.cli.fit_local_temperature import main

if __name__ == "__main__":
    run_tool(main)
