"""Guidance: a guided model is just another model. Each class wraps a Denoiser and is one.

A scale of 1 is the plain conditional model, in every class here; Ho & Salimans' w is scale - 1.
"""
