"""Solvers: numerical methods for the reverse process, on every process and with every denoiser."""
