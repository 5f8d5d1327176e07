"""How far a run is from the paper's: network, images and trainings."""

from miram.params.schema import Params
from miram.params.stages import ARCHIVE


def distance(params: Params, paper: Params) -> list[str]:
    """What differs between a run's parameters and preset `paper`, each in words; empty where nothing does."""
    own, theirs = _setting(params), _setting(paper)
    return [f"{name} {own[name]} (the paper: {theirs[name]})" for name in own if own[name] != theirs[name]]


def _setting(params: Params) -> dict[str, str]:
    encoder, decoder, pretrain = params.encoder, params.decoder, params.pretrain
    return {
        "encoder": f"{encoder.width} wide, {encoder.depth} deep, patch {encoder.patch}",
        "decoder": f"{decoder.width} wide, {decoder.depth} deep",
        "crops": "of the archive" if params.crops.from_ == ARCHIVE else "cut from the films",
        "side": f"{pretrain.side} px",
        "pre-training": f"{pretrain.epochs} epochs at batch {pretrain.batch}",
        "fine-tuning": f"{params.finetune.epochs} epochs at batch {params.finetune.batch}",
    }
