"""Tables to plotly figures: no side effects, colour-blind-safe colours, units on every axis."""

from tbtt_interp.figures.ablation import ablations, neuron_maps
from tbtt_interp.figures.additivity import additivity_answers, additivity_shares
from tbtt_interp.figures.attention import attention, qk_and_ov
from tbtt_interp.figures.attribution import attribution_bars, lens_curves
from tbtt_interp.figures.findings import findings_over_steps, overview
from tbtt_interp.figures.geometry import code_layouts, code_measures
from tbtt_interp.figures.order import order_answers, order_known, order_patching
from tbtt_interp.figures.patching import patching_characters, patching_grid
from tbtt_interp.figures.paths import circuits, paths
from tbtt_interp.figures.probing import (
    accuracies_beside_nulls,
    beside_nulls,
    effects_beside_nulls,
    probe_curves,
    probe_heatmap,
    unsaid,
)
from tbtt_interp.figures.sizes import by_size
from tbtt_interp.figures.style import save

__all__ = [
    "ablations",
    "accuracies_beside_nulls",
    "additivity_answers",
    "additivity_shares",
    "attention",
    "attribution_bars",
    "beside_nulls",
    "by_size",
    "circuits",
    "code_layouts",
    "code_measures",
    "effects_beside_nulls",
    "findings_over_steps",
    "lens_curves",
    "neuron_maps",
    "order_answers",
    "order_known",
    "order_patching",
    "overview",
    "patching_characters",
    "patching_grid",
    "paths",
    "probe_curves",
    "probe_heatmap",
    "qk_and_ov",
    "save",
    "unsaid",
]
