"""The algorithms: pure functions over an Encoder and tensors, one file each."""
