"""Text to packed batches: readers, labels, features for each task."""
