"""Conformal guarantees as plain maths on scores: quantiles, pixel sets, risk control, inner and outer masks."""
