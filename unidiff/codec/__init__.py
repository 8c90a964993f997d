"""Codecs: networks that turn pictures into small latents and back, with diffusers' autoencoders inside."""
