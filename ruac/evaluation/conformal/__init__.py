"""Conformal bounds of a model: fitted on source pictures, and what becomes of them elsewhere."""
