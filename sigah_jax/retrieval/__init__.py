"""Search and its measurement: packed codes, exact neighbours, distance histograms, metrics."""
