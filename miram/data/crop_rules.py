"""How crops are cut or taken: `params` builds it, the stages read it; names and units are those of params.yaml."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class WindowRule:
    """Which parts of a mask count, see `select_component`, and the window around its box, see `window_around`."""

    component: str
    shape: str
    margin: float
    side_min: int


WINDOW = tuple(field.name for field in fields(WindowRule))


@dataclass(frozen=True, kw_only=True)
class Cutting(WindowRule):
    """What decides the crops of lesions, see `cut_film`, and the background patches, see `cut_backgrounds`."""

    bits: int
    air: float
    backgrounds_per_film: int
    backgrounds_seed: int


@dataclass(frozen=True, kw_only=True)
class Taking:
    """What decides the crops that are the archive's own, see `take_crops`."""

    bits: int
    doubtful: str
