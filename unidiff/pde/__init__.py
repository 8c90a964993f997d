"""The renormalised heat equation as a PDE: domains, eigenmodes, exact evolution, stability, forcing, backward runs."""
