"""Figures: from numbers to image files, without computation."""

from unidiff.plot.diagrams import Curve, Graph, Panel, save_curves, save_fields, save_graphs, save_loss_curve
from unidiff.plot.samples import (
    cut_samples,
    path_images,
    sample_images,
    save_animation,
    save_samples,
    save_strip,
    save_table,
)
from unidiff.plot.show import comparison_panels, name_of

__all__ = [
    "Curve",
    "Graph",
    "Panel",
    "comparison_panels",
    "cut_samples",
    "name_of",
    "path_images",
    "sample_images",
    "save_animation",
    "save_curves",
    "save_fields",
    "save_graphs",
    "save_loss_curve",
    "save_samples",
    "save_strip",
    "save_table",
]
