"""The demo: drawn pictures, a small model trained on them, and the whole job on a laptop."""

from pathlib import Path

PACKAGE = Path(__file__).parent / "model"
"""The folder of the small model's package."""
WIDTH = 0.25
"""The width of the small model."""
