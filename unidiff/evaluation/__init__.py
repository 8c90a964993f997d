"""How good samples are: distances between two sets of them, the true flow, and tables that compare solvers."""
