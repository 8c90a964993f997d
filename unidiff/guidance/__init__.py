"""Guidance: a guided model is just another model. Each class wraps a Denoiser and is one.

A scale of 1 is the plain conditional model, but for ClassifierGuidance around a model that knows classes already; Ho &
Salimans' w is scale - 1.
"""
