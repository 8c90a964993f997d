"""Backbones: the networks inside denoisers. They map pixels to pixels and are independent of the process."""
