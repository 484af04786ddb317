"""Semantic segmenters trained from few labels, pseudo-labels and the rest of the pictures."""
