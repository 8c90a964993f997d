"""One training loop for every process, parameterization and backbone."""
