"""Optimizers as specs, their state as named tensors, and schedules of the learning rate."""
