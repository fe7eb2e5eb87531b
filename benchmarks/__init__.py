"""Scripts that measure and print; `python -m benchmarks` runs those with a target and prints one table."""
