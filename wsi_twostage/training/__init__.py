"""Training, evaluation and calibration of bundles; needs torch alone, never a slide or a store."""
