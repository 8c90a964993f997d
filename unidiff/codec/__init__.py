"""Codecs: autoencoders between images and latents, built on the networks of diffusers."""

from __future__ import annotations

from unidiff.lazy import attach, exports

EXPORTS = exports(__file__)
__all__ = list(EXPORTS)
__getattr__ = attach(__name__, EXPORTS, {})
