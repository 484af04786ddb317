"""``ruac doctor`` as a script: tools/doctor.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.doctor import main

if __name__ == "__main__":
    run_tool(main)
