"""Guidance: each class wraps a Denoiser and is one.

A scale of 1 is the conditional model, except for ClassifierGuidance of a model that is conditional already; Ho &
Salimans' w is scale - 1.
"""
