"""Exports trained policies to formats that other programs load, one file or folder per policy."""
