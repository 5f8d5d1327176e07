"""Checks of values that depend on each other."""

from pathlib import Path

from miram import kinds
from miram.errors import ParameterError
from miram.params.schema import DEMO, IMAGES, Method, Params
from miram.params.stages import ARCHIVE, EMBEDDED, is_embedded


def check_together(params: Params, path: Path) -> None:
    """Raise ParameterError for the first conflict between values of `path`."""
    finetune, moco, tcia = params.finetune, params.moco, params.sources.tcia
    embedded = [url == EMBEDDED for url in (tcia.api_url, tcia.csv_url)]
    widths = [(part, getattr(params, part)) for part in ("encoder", "decoder")]
    patch, sides = params.encoder.patch, [("pretrain", params.pretrain.side)]
    sides += [(f"methods.{name}", method.pretrain.side) for name, method in params.methods.items()]
    lists = {f"finetune.{name}": getattr(finetune, name) for name in ("tasks", "modes", "seeds", "linear_c")}
    own = [task == "label" for task in finetune.tasks]
    lists |= {"splits.protocols": params.splits.protocols, "pretrain.seeds": params.pretrain.seeds}
    lists |= {f"finetune.lr.{protocol}": rates for protocol, rates in vars(finetune.lr).items()}
    faults = {
        **{f"{part}: heads {v.heads} do not divide width {v.width}": v.width % v.heads for part, v in widths},
        **{f"{part}: 4 does not divide width {v.width}, as positions need": v.width % 4 for part, v in widths},
        **{f"{place}: side {side} is not a multiple of encoder.patch {patch}": side % patch for place, side in sides},
        f"finetune: warmup_epochs {finetune.warmup_epochs} exceeds epochs {finetune.epochs}": (
            finetune.warmup_epochs > finetune.epochs
        ),
        f"finetune: zoom_min {finetune.zoom_min} exceeds zoom_max {finetune.zoom_max}": (
            finetune.zoom_min > finetune.zoom_max
        ),
        **{f"{name}: {values} names one twice": len(set(values)) < len(values) for name, values in lists.items()},
        f"pretrain.seeds: {params.pretrain.seeds} are more than finetune.seeds {finetune.seeds}": (
            len(params.pretrain.seeds) > len(finetune.seeds)
        ),
        f"moco: blur_sigma_min {moco.blur_sigma_min} exceeds blur_sigma_max {moco.blur_sigma_max}": (
            moco.blur_sigma_min > moco.blur_sigma_max
        ),
        f"statistics.reference: {params.statistics.reference!r} is not a method": (
            params.statistics.reference not in params.methods
        ),
        f"sources.tcia: api_url and csv_url are both `embedded`, with an archive section, only in {DEMO}": (
            {*embedded, params.archive is not None} != {params.preset == DEMO}
        ),
        f"sources.tcia: fallback {tcia.fallback} has no series of an `embedded` archive": (
            is_embedded(params) and tcia.fallback is not None
        ),
        f"finetune.tasks: {finetune.tasks} with source {params.source}; [label] is only for source images": (
            set(own) != {params.source == IMAGES}
        ),
        "crops: from `archive` is for CBIS-DDSM, not for source images": (
            params.source == IMAGES and params.crops.from_ == ARCHIVE
        ),
        "sources.idc: with films `rows` there are no films for transfer.keep_dicom true to keep; use `whole`": (
            params.source == "idc"
            and params.sources.idc.films == "rows"
            and params.crops.from_ != ARCHIVE
            and params.transfer.keep_dicom
        ),
    }
    for name, method in params.methods.items():
        faults |= _method_faults(params, method, f"methods.{name}")
    wrong = next((text for text, is_wrong in faults.items() if is_wrong), None)
    if wrong:
        raise ParameterError(f"{wrong}; in {path}, preset {params.preset}", "Change one of the values that it names.")


def _method_faults(params: Params, method: Method, place: str) -> dict[str, bool]:
    """Message -> whether it applies, for each conflict between a method's values."""
    own, devices, entry = method.pretrain, params.compute.devices, kinds.OBJECTIVES[method.objective]
    patches = (own.side // params.encoder.patch) ** 2
    kept = int(patches * (1 - own.mask_ratio))
    faults = {
        f"{place}: warmup_epochs {own.warmup_epochs} exceeds epochs {own.epochs}": own.warmup_epochs > own.epochs,
        f"{place}: batch {own.batch} is not a multiple of accumulate {own.accumulate} times devices": (
            own.batch % (own.accumulate * devices if isinstance(own.accumulate, int) else devices) > 0
        ),
        f"{place}: batch {own.batch} on {devices} device(s); BatchNorm needs {entry.least_images} images on each": (
            0 < own.batch // devices < entry.least_images
        ),
        f"{place}: mask_ratio {own.mask_ratio} keeps {kept} of {patches} patches": entry.masked
        and not 0 < kept < patches,
    }
    return faults | (_attention_faults(params, method, method.attention, place, patches) if method.attention else {})


def _attention_faults(params: Params, method: Method, attention: str, place: str, patches: int) -> dict[str, bool]:
    """The same for its attention."""
    is_package = method.backend == kinds.PACKAGE
    setting = kinds.Setting(
        tokens=1 + params.highres.scale**2 * patches,
        head_width=params.decoder.width // params.decoder.heads,
        backend=method.backend,
    )
    own = kinds.ATTENTION[attention].faults(method.options or {}, setting)
    return {
        f"{place}: recompute true is for backend fused, not package": is_package and method.pretrain.recompute,
        **{f"{place}.options: {text}": True for text in own},
    }
