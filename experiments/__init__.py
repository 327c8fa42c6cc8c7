"""Config files, whose `get_config(arguments)` serves `--config=FILE:arguments`; tables; timings."""
