"""The bridge to diffusers: its saved models and pipelines as denoisers, and runs as pipelines that it loads."""

from unidiff.interop.diffusers.export import Exported, export
from unidiff.interop.diffusers.load import load, load_grid
from unidiff.interop.diffusers.network import ClipSample, DiffusersBackbone, DiffusersDenoiser

__all__ = ["ClipSample", "DiffusersBackbone", "DiffusersDenoiser", "Exported", "export", "load", "load_grid"]
