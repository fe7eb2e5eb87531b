"""Trained policies outside the platform: one file or folder per policy, in formats that others load."""
