"""Solvers: how noise becomes data again. Each runs on every process with every denoiser."""
