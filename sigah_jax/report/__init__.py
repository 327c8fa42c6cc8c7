"""What a run looks like to a reader: tables as text, plots as PNG files."""
