"""Measure how much of the bare detector's speed a whole run reaches with the full SSD300: `steady` with that model."""

from tests.benchmarks.steady import main

if __name__ == "__main__":
    main("ssd300")
