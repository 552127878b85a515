"""Blocks that know no mixer: linear maps, norms, positions, masks, activations, embeddings, initialisation."""
