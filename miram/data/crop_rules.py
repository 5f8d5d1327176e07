"""How crops are cut: `params` builds it, the stage crops reads it; names and units are those of params.yaml."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cutting:
    """What decides the crops of lesions, see `cut_film`, and the background patches, see `cut_backgrounds`."""

    component: str
    shape: str
    margin: float
    side_min: int
    bits: int
    air: float
    backgrounds_per_film: int
    backgrounds_seed: int
