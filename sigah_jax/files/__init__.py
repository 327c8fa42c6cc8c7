"""Files: written whole, locked, resumed, cached."""
