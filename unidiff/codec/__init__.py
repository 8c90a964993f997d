"""Codecs: networks that turn pictures into small latents and back, with diffusers' autoencoders inside."""

from __future__ import annotations

from unidiff.lazy import attach, exports

EXPORTS = exports(__file__)
__all__ = list(EXPORTS)
__getattr__ = attach(__name__, EXPORTS, {})
