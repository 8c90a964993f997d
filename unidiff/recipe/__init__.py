"""Recipes: nested constructor arguments in a YAML file, checked against the constructors themselves."""
