"""The reliability report: a sweep's results as one self-contained HTML file."""

from ruac.evaluation.report.build import build_report

__all__ = ["build_report"]
