"""params.yaml as strict, frozen values: one preset resolved, every key known, every value of its type and range.

A parameter keeps one name on its way: key in params.yaml -> field in `schema` -> keyword of the stage's function ->
argument of the operation. The code has no defaults for values in the file.
"""

from miram.params.cells import (
    cells,
    chooser,
    encoder_of,
    explained,
    first_like,
    headline,
    inputs_of,
    kept,
    kinds_of,
    pretrain_seed,
    pretrainings,
    side_of,
    starts_of,
    trivial_cells,
)
from miram.params.distance import distance
from miram.params.reading import load
from miram.params.schema import IMAGES, PRESETS, Params
from miram.params.stages import (
    ARCHIVE,
    EMBEDDED,
    Part,
    Placed,
    crops_of,
    explaining_of,
    given_paths,
    headline_jobs,
    is_embedded,
    jobs,
    parts,
    probe_of,
    recipe_of,
    stage_values,
    stages_of,
    trivial_of,
    tuning_of,
)
