"""The commands about a machine: whether it will do, what fits on it, what all trainings cost there."""

import argparse
from typing import Any

from miram import layout, params
from miram.cli.stage import do_stage, pretrainings


def doctor(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Examine this machine before anything large starts."""
    from miram.doctor import examine

    values = params.stage_values(chosen, "doctor")
    places = {name: value for name, value in values["settings"].items() if name.endswith(("_url", "folder"))}
    facts = {
        "addresses": {f"sources.{chosen.source}.{n}": v for n, v in places.items() if v != params.EMBEDDED},
        "methods": values["methods"],
        "accelerator": chosen.compute.accelerator,
        "preset": chosen.preset,
        "keep_dicom": chosen.transfer.keep_dicom,
        "timeout_seconds": chosen.transfer.timeout_seconds,
    }

    def work() -> dict[str, Any]:
        return examine(layout.data(chosen.preset), **facts)

    do_stage(chosen, "doctor", [], [], work)


def fit_memory(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Print what each method's pre-training takes, and how its batch fits."""
    from miram.fit import as_table

    print(as_table(pretrainings(chosen), arguments.vram * 1e9, devices=chosen.compute.devices))


def plan_hours(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Print the hours of every training of the preset."""
    from miram.budget import as_table

    protocols, names = chosen.splits.protocols, chosen.methods
    cells = [cell for cell in params.cells(chosen) if cell.mode == layout.FULL]
    started = {
        name: [layout.record("pretrain", chosen.preset, protocol, name) for protocol in protocols] for name in names
    }
    tuned = [layout.record("finetune", chosen.preset, *cell) for cell in cells]
    print(as_table(pretrainings(chosen), started, tuned, epochs=chosen.finetune.epochs, benches=layout.benches()))


def measure(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Run the bench at the sizes of the preset."""
    from miram.bench.efficiency import bench

    flags = [f"--device {arguments.device}"] + ["--quick"] * arguments.quick
    command = " ".join([f"miram --preset {chosen.preset} bench", *flags])
    print(f"written: {bench(pretrainings(chosen), arguments.out, arguments.device, arguments.quick, command)}")
