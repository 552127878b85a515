"""How good a model is: loss, perplexity and bits per byte on text that it has not seen."""
