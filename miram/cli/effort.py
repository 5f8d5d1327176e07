"""What the trainings behind a row of the table see and compute, for rows to be compared like with like."""

from pathlib import Path
from typing import TYPE_CHECKING

from miram import layout, params
from miram.cli.machine import count_images_of

if TYPE_CHECKING:
    from miram.planning.hours import Images

Row = tuple[str, str, str, str]  # protocol, task, mode, method


def efforts(chosen: params.Params) -> dict[Row, dict[str, float]]:
    """Columns of comparison.csv by row: of one pre-training, and of one classifier."""
    from miram.planning.flops import finetuning_flops, pretraining_flops
    from miram.planning.hours import classifier_job, images_seen

    extra = len(layout.extra_files(chosen.pretrain.extra_images))
    images: dict[str, Images] = {protocol: count_images_of(chosen, protocol) for protocol in chosen.splits.protocols}
    found: dict[Row, dict[str, float]] = {}
    for cell in params.cells(chosen):
        own, side = images[cell.protocol], params.side_of(chosen, cell.method)
        job = classifier_job(cell, side, own, chosen.finetune.epochs, Path())
        flops = finetuning_flops(params.encoder_of(chosen, cell.method), side)
        row: dict[str, float] = {"side": side, "finetune_flops": job.images * flops}
        if cell.method in chosen.methods:
            recipe = params.recipe_of(chosen, cell.method)
            seen = images_seen(recipe, own.lesions + own.backgrounds + extra)
            row |= {"pretrain_batch": recipe.batch, "pretrain_steps": seen // recipe.batch, "pretrain_images": seen}
            row["pretrain_flops"] = seen * pretraining_flops(recipe)
        found[cell[:4]] = row
    return found
