"""``ruac export-onnx`` as a script: tools/export_onnx.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.export_onnx import main

if __name__ == "__main__":
    run_tool(main)
