"""``fastsdm demo``: the main job on a real volume, measured against the published recipe."""
