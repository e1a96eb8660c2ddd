"""The demo: pictures drawn here, a small model trained on them, and the whole job on a laptop."""

from pathlib import Path

PACKAGE = Path(__file__).parent / "model"
"""The small model's package."""
