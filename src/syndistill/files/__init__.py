"""Files as they lie on disk, without PyTorch: tensors with a content hash, networks and the shapes of their weights."""
