"""Data: files, data sets, splits, batches and cached arrays. Knows nothing of models."""
