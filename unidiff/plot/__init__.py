"""Figures: from numbers to image files, without computation."""

from unidiff.plot.diagrams import (
    Curve,
    Dots,
    Graph,
    Panel,
    save_curves,
    save_dots,
    save_fields,
    save_graphs,
    save_loss_curve,
)
from unidiff.plot.samples import (
    cut_samples,
    path_images,
    sample_images,
    save_animation,
    save_samples,
    save_strip,
    save_table,
)

__all__ = [
    "Curve",
    "Dots",
    "Graph",
    "Panel",
    "cut_samples",
    "path_images",
    "sample_images",
    "save_animation",
    "save_curves",
    "save_dots",
    "save_fields",
    "save_graphs",
    "save_loss_curve",
    "save_samples",
    "save_strip",
    "save_table",
]
