"""The command that exports weights for others."""

import argparse

from miram import layout, params
from miram.cli.stage import check_known, first_pretrainings
from miram.errors import MiramError
from miram.provenance import record
from miram.recipe import IMAGENET_MEAN, IMAGENET_STD


def weights(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Write a pre-trained encoder for timm and for transformers, with its model card."""
    import pandas as pd

    from miram.evaluate.predictions import SECTION
    from miram.models.share import TIMM_BASE, share_encoder
    from miram.report.card import write_card

    first, task, mode = params.headline(chosen)
    method, protocol = arguments.method, arguments.protocol or first
    if method in chosen.encoders:
        raise MiramError(
            f"{method} was not pre-trained here: its weights are those of encoders.{method}.",
            f"Share its file itself, or name a method: {', '.join(chosen.methods)}.",
        )
    check_known("method", method, chosen.methods)
    check_known("protocol", protocol, chosen.splits.protocols)
    path, metrics = first_pretrainings(chosen, arguments, protocol)[method], None
    made, evaluated = record.read(path), layout.record("evaluate", chosen.name)
    if evaluated.exists():  # metrics without it have gaps
        record.read(evaluated)
        every = pd.read_csv(layout.results(chosen.name) / "metrics.csv")
        metrics = every[(every[list(SECTION)] == [protocol, task, mode]).all(axis=1)]
    scale = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    architecture = share_encoder(path.parent / "encoder.safetensors", arguments.out, **scale)
    own = "own" if chosen.source == params.IMAGES else "cbis-ddsm"
    write_card(
        arguments.out / "README.md",
        method=method,
        protocol=protocol,
        data="demo" if params.is_embedded(chosen) else own,
        base=TIMM_BASE,
        architecture=architecture,
        record=made,
        metrics=metrics,
        confidence=chosen.statistics.confidence,
        **scale,
    )
    print(f"{arguments.out}: timm/, transformers/ and README.md, the model card")
