"""Conditions: what a model is conditioned on beside state and noise level, tensors with a row per sample, by name."""
