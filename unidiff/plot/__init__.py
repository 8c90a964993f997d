"""Figures: from numbers to image files, without computation."""

from unidiff.plot.appearance import COLOURS, Formula, look, shown, style
from unidiff.plot.diagrams import Curve, Graph, Panel, save_curves, save_graphs, save_loss_curve
from unidiff.plot.dots import Dots, save_dots
from unidiff.plot.fields import save_fields
from unidiff.plot.figure import FORMATS, also_as, new_figure, save_figure
from unidiff.plot.samples import (
    cut_samples,
    path_images,
    sample_images,
    save_animation,
    save_samples,
    save_strip,
    save_table,
)
from unidiff.plot.show import comparison_panels, grid_of, names_of

__all__ = [
    "COLOURS",
    "FORMATS",
    "Curve",
    "Dots",
    "Formula",
    "Graph",
    "Panel",
    "also_as",
    "comparison_panels",
    "cut_samples",
    "grid_of",
    "look",
    "names_of",
    "new_figure",
    "path_images",
    "sample_images",
    "save_animation",
    "save_curves",
    "save_dots",
    "save_fields",
    "save_figure",
    "save_graphs",
    "save_loss_curve",
    "save_samples",
    "save_strip",
    "save_table",
    "shown",
    "style",
]
