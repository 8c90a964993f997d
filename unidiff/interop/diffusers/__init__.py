"""The bridge to diffusers: its saved models and pipelines as denoisers, its schedulers' times as grids."""

from unidiff.interop.diffusers.load import load, load_grid
from unidiff.interop.diffusers.network import Clipped, DiffusersBackbone, DiffusersDenoiser

__all__ = ["Clipped", "DiffusersBackbone", "DiffusersDenoiser", "load", "load_grid"]
