"""Where everything lies: the one place of each folder and file name, relative to the working folder.

`preset`, `method` and `seed` may be the workflow's wildcards in braces as well as values.
"""

from pathlib import Path

from miram.errors import MiramError

FROM_SCRATCH = "from-scratch"  # the method without pre-training
CASE_CSVS = tuple(f"{kind}_case_description_{part}_set.csv" for kind in ("mass", "calc") for part in ("train", "test"))


def data(preset: str) -> Path:
    """Archive, DICOMs, crops, tables."""
    return Path("data", preset)


def extra_pngs(extra_images: str | None) -> list[Path]:
    """The user's own images for pre-training, by name. Raises MiramError when a folder is named that holds none."""
    if extra_images is None:
        return []
    found = sorted(Path(extra_images).glob("*.png"))
    if not found:
        raise MiramError(
            f"pretrain.extra_images: {extra_images} is no folder with PNG files.", "Name one in params.yaml, or null."
        )
    return found


def pretrain(preset: str, method: str) -> Path:
    """One pre-training."""
    return Path("runs", preset, "pretrain", method)


def finetune(preset: str, method: str, seed: int | str) -> Path:
    """One fine-tuning."""
    return Path("runs", preset, "finetune", method, f"seed-{seed}")


def results(preset: str) -> Path:
    """Tables and figures, kept in git."""
    return Path("results", preset)


def record(stage: str, preset: str, method: str = "", seed: int | str = "") -> Path:
    """The JSON record that a stage writes last."""
    if stage == "pretrain":
        return pretrain(preset, method) / "record.json"
    if stage == "finetune":
        return finetune(preset, method, seed) / "record.json"
    if stage in ("evaluate", "table"):
        return Path("runs", preset, f"{stage}.json")  # not beside the results: those are in git, and would seem made
    return data(preset) / f"{stage}.json"
