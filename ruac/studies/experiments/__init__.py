"""Experiments beside the sweep: each answers one question and leaves a table, a record and a figure."""
