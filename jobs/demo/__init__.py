"""The demo: pictures drawn here, a small model trained on them, and the whole job on a laptop."""
