"""The main job on a real volume, measured against the published recipe: ``python -m examples.demo``."""
