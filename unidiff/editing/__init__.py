"""Editing by a model that was not trained for it: RePaint, SDEdit, and inversion of the probability flow."""
