"""Data sets, their splits and their downloads. Knows nothing of models."""
