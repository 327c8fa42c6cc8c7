"""Experiment files: each has `get_config(arguments)` for `--config=FILE:arguments`."""
