"""A run directory: made by training, and all that is needed to sample, compare or resume."""
