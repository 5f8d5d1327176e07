"""params.yaml as strict, frozen values: one preset resolved, every key known, every value of its type and range.

A parameter keeps one name on its way: key in params.yaml -> field in `schema` -> keyword of the stage's function ->
argument of the operation. The code has no defaults for values in the file.
"""

from miram.params.reading import load
from miram.params.schema import IMAGES, PRESETS, Params
from miram.params.stages import (
    EMBEDDED,
    cells,
    chooser,
    cutting_of,
    explained,
    explaining_of,
    given_paths,
    headline,
    is_embedded,
    jobs,
    kept,
    kinds_of,
    probe_of,
    recipe_of,
    side_of,
    stage_values,
    stages_of,
    tuning_of,
)

__all__ = [
    "EMBEDDED",
    "IMAGES",
    "PRESETS",
    "Params",
    "cells",
    "chooser",
    "cutting_of",
    "explained",
    "explaining_of",
    "given_paths",
    "headline",
    "is_embedded",
    "jobs",
    "kept",
    "kinds_of",
    "load",
    "probe_of",
    "recipe_of",
    "side_of",
    "stage_values",
    "stages_of",
    "tuning_of",
]
