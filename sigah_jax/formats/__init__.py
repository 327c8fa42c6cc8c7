"""Formats of vectors: what is in a file, read by rows."""
