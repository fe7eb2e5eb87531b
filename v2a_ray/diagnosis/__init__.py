"""Explains why a method worked: compares each stage's output with the simulator and with labels that no learner reads.

No Ray here, and nothing here changes a result.
"""
