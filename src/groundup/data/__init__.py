"""From texts to batches: sources, cleaning, a corpus on disk, and the loader that reads it."""
