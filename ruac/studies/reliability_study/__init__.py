"""Model x calibration x domain: the figures of three papers on reliability, for promptable segmentation."""
