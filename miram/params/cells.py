"""The classifiers of a preset, and the pre-trainings that they start from."""

from pathlib import Path

from miram import layout
from miram.layout import Cell
from miram.params.schema import Method, Params
from miram.recipe import Encoder, Timm


def cells(params: Params) -> list[Cell]:
    """Every fine-tuning of a preset, in the order of the table's rows.

    Modes with a frozen encoder have no randomness: they run once a pre-training, with the first seeds.
    """
    tuning = params.finetune
    return [
        Cell(protocol, task, mode, method, seed)
        for task in tuning.tasks
        for protocol in params.splits.protocols
        if task == tuning.tasks[0] or _is_whole(params, protocol)
        for mode in tuning.modes
        for method in [layout.FROM_SCRATCH, *params.encoders, *params.methods]
        for seed in _seeds(params, protocol, mode)
    ]


def _is_whole(params: Params, protocol: str) -> bool:
    """Whether a protocol gets every task and seed, not the main task with the first seed alone."""
    return params.splits.further == "all" or protocol == params.splits.protocols[0]


def _seeds(params: Params, protocol: str, mode: str) -> list[int]:
    """The seeds of a mode's classifiers."""
    tuning = params.finetune
    if not _is_whole(params, protocol):
        return tuning.seeds[:1]
    return tuning.seeds if mode == layout.FINETUNE else tuning.seeds[: len(params.pretrain.seeds)]


def trivial_cells(params: Params) -> list[Cell]:
    """What the trivial classifiers answer: each task under each protocol, one answer whatever the mode and the seed."""
    return [
        Cell(protocol, task, layout.TRIVIAL_MODE, method, params.finetune.seeds[0])
        for task in params.finetune.tasks
        for protocol in params.splits.protocols
        if task == params.finetune.tasks[0] or _is_whole(params, protocol)
        for method in layout.TRIVIAL
    ]


def pretrain_seed(params: Params, cell: Cell) -> int | None:
    """The pre-training that a cell starts from: the k-th seed of fine-tuning takes the k-th, after the last the first.

    None for a method that is not pre-trained here.
    """
    if cell.method not in params.methods:
        return None
    seeds = params.pretrain.seeds
    return seeds[params.finetune.seeds.index(int(cell.seed)) % len(seeds)]


def pretrainings(params: Params) -> list[tuple[str, str, int]]:
    """Protocol, method and seed of every pre-training, which some classifier starts from."""
    found = ((cell.protocol, cell.method, pretrain_seed(params, cell)) for cell in cells(params))
    return list(dict.fromkeys((protocol, method, seed) for protocol, method, seed in found if seed is not None))


def headline(params: Params) -> tuple[str, str, str]:
    """Protocol, task and mode of the headline: the first of each list."""
    return params.splits.protocols[0], params.finetune.tasks[0], params.finetune.modes[0]


def kept(params: Params) -> list[Cell]:
    """The fine-tunings whose network is kept, those of the first seed: only they are explained or used to predict."""
    return [cell for cell in cells(params) if cell.mode == layout.FINETUNE and cell.seed == params.finetune.seeds[0]]


def chooser(params: Params, cell: Cell) -> Cell | None:
    """The fine-tuning that chooses the learning rate of this one, with the first seed; None if it has its own."""
    first = cell._replace(seed=params.finetune.seeds[0])
    several = cell.mode == layout.FINETUNE and len(getattr(params.finetune.lr, cell.protocol)) > 1
    return first if several and int(cell.seed) != first.seed else None


def inputs_of(params: Params, cell: Cell) -> list[Path]:
    """What a cell is made from: the records of the stages before it, and a file of weights."""
    found = [layout.record("crops", params.name), layout.record("pack", params.name)]
    found.append(layout.record("splits", params.name, cell.protocol))
    seed, first, given = pretrain_seed(params, cell), chooser(params, cell), params.encoders.get(cell.method)
    if seed is not None:
        found.append(layout.record("pretrain", params.name, cell.protocol, cell.method, seed))
    if first is not None:
        found.append(layout.record("finetune", params.name, *first))
    if given is not None and given.weights is not None:
        found.append(Path(given.weights))
    return found


def explained(params: Params) -> list[Cell]:
    """The networks that the stage `explain` reads: fine-tuned, on the headline's task, of the first seed."""
    return [cell for cell in kept(params) if cell[:2] == headline(params)[:2]]


def kinds_of(params: Params) -> dict[str, str]:
    """Each method that is compared -> its kind, which gives its look: its attention or objective, or how it starts."""
    names = dict.fromkeys(cell.method for cell in cells(params))
    own = {name: kind_of(method) for name, method in params.methods.items()}
    return {name: own.get(name, layout.TIMM if name in params.encoders else name) for name in names}


def starts_of(params: Params) -> dict[str, str]:
    """Each row that is not pre-trained here -> where its encoder comes from, in words."""
    given = {
        name: f"not pre-trained here: {own.timm} of timm, {own.weights or 'random weights'}"
        for name, own in params.encoders.items()
    }
    return {layout.FROM_SCRATCH: "no pre-training", **given}


def encoder_of(params: Params, method: str) -> Encoder | Timm:
    """The encoder of a row: that of the parameters, or a network of timm."""
    given = params.encoders.get(method)
    return params.encoder if given is None else Timm(given.timm, given.weights)


def kind_of(method: Method) -> str:
    """The attention if the objective has a choice of it, otherwise the objective."""
    return method.attention or method.objective


def conditions_of(params: Params) -> dict[str, dict[str, int]]:
    """Each method that is compared -> its side and, of pre-training, batch and epochs."""
    found = {}
    for name in kinds_of(params):
        own = params.methods[name].pretrain if name in params.methods else None
        trained = {"batch": own.batch, "epochs": own.epochs} if own else {}
        found[name] = {"side": side_of(params, name), **trained}
    return found


def further_references(params: Params) -> list[str]:
    """The methods that are the reference at another side or batch: each is compared with all others as well."""
    reference = params.statistics.reference
    return [
        name
        for name in params.methods
        if name != reference and first_like(params, name) == first_like(params, reference)
    ]


def first_like(params: Params, name: str) -> str:
    """The first method of the same model, whatever it is trained on: its rate at a side is that of this one too."""

    def model(method: Method) -> tuple[object, ...]:
        return method.objective, method.attention, method.backend, method.options, method.pretrain.recompute

    return next(other for other in params.methods if model(params.methods[other]) == model(params.methods[name]))


def side_of(params: Params, method: str) -> int:
    """Side in px of what a classifier of a method sees; that of `pretrain` where there is no other."""
    if method in params.methods:
        return params.methods[method].pretrain.side
    given = params.encoders.get(method)
    return (given and given.side) or params.pretrain.side
