"""Where clean images come from: the embedded generator, a folder, or a data set on the disk."""
