"""``ruac train-student`` as a script: tools/train_student.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.train_student import main

if __name__ == "__main__":
    run_tool(main)
