"""One file a task: features, metrics, decoding."""
