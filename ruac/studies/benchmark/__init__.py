"""Benchmarks: one question each, answered by ratios of times within one run."""
