"""What a model is trained for: plain functions of a model and a batch."""
