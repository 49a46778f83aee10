"""Raw files → sealed, cached tensors."""
