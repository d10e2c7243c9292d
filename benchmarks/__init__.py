"""Figures of each area, measured by one command: `python -m benchmarks AREA [--small]`."""
