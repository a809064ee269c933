"""Where clean images come from: the embedded procedural generator, or a folder."""
