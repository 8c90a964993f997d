"""Inverse problems: linear measurements of data, and models of the data given what was measured."""
