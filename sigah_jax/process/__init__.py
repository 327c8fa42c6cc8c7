"""The process: signals, output that may break, settings of the environment, BLAS."""
