"""Labels of unlabelled pictures from prompts, filtered by conformal sets (ConformalSAM, stage I)."""
