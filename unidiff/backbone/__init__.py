"""Backbones: the networks inside the denoisers. They map pixels to pixels and know nothing of processes."""
