"""The store, its snapshot, and the workers that search a study."""
