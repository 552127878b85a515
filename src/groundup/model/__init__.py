"""Residual parts, layers, and the models that stack them."""
