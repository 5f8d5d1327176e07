"""The commands of the data: from the archive or own images to packed crops, splits and their audit."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from miram import layout, params
from miram.cli.stage import check_known, do_stage, store_of
from miram.errors import ParameterError
from miram.provenance import record

if TYPE_CHECKING:
    from miram.data.own_images.table import Table

SHOWN = 24  # crops of own images that the check shows


def archive(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Write the embedded archive, and delete everything made from an older one."""
    from miram.phantom.archive import write_archive

    if not params.is_embedded(chosen):
        raise ParameterError(
            f"Preset {chosen.preset} with source {chosen.source} has no embedded archive.",
            "Allowed: --preset demo, with source: tcia.",
        )
    data = layout.data(chosen.name)

    def work() -> dict[str, Any]:
        rmtree(data / "dicom", ignore_errors=True)
        layout.ledger(chosen.name).unlink(missing_ok=True)
        return write_archive(data / "archive", **params.stage_values(chosen, "archive")["archive"])

    do_stage(chosen, "archive", [], [data / "archive" / "archive.json"], work)


def serve_archive(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Serve the embedded archive until interrupted."""
    from miram.phantom.server import serve

    record.read(layout.record("archive", chosen.name))
    serve(layout.data(chosen.name) / "archive", arguments.port)


def catalogue(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Download the case lists and list the series that they need."""
    from miram.data.transfer.catalogue import list_archive

    data = layout.data(chosen.name)
    inputs = [layout.record("archive", chosen.name)] if params.is_embedded(chosen) else []
    _restore_archive(chosen)
    for path in inputs:
        record.read(path)
    outputs = [*(data / "csv" / name for name in layout.CASE_CSVS), data / "series.csv"]

    def work() -> dict[str, Any]:
        with _source(chosen) as values:
            return list_archive(
                data / "csv", data / "series.csv", **values, **_tries(chosen), carried=_is_carried(chosen)
            )

    do_stage(chosen, "catalogue", inputs, outputs, work)


def crops(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Download the films and cut the crops."""
    from miram.data.transfer.films import cut_films

    if arguments.dry_run:
        data_plan(chosen, arguments)
        return
    source = layout.record("catalogue", chosen.name)
    _restore_archive(chosen)
    record.read(source)
    places = _places(chosen)

    def work() -> dict[str, Any]:
        with _source(chosen) as values:
            return cut_films(places, cutting=params.crops_of(chosen), **values, **asdict(chosen.transfer))

    outputs = [places.lesions_csv, places.set_aside_csv, places.backgrounds_csv, places.lock]
    do_stage(chosen, "crops", [source], outputs, work)


def data_plan(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Print what the stage crops still has to do, without changes; before the stage catalogue, all of it.

    For CBIS-DDSM this needs no network; a local folder is scanned.
    """
    from miram.data.transfer.catalogue import list_archive, list_carried
    from miram.data.transfer.films import plan_films

    places = _places(chosen)
    transfer = {name: getattr(chosen.transfer, name) for name in ("workers", "keep_dicom")}
    with _source(chosen) as values, TemporaryDirectory() as folder:
        if not layout.record("catalogue", chosen.name).exists():
            places = places._replace(csv_dir=Path(folder, "csv"), series_csv=Path(folder, "series.csv"))
            if _is_carried(chosen) and chosen.source != "local":
                list_carried(places.csv_dir, places.series_csv, **values)
                print("before `miram catalogue`: from the installed case lists and index, without network")
            else:
                more = _tries(chosen) | {"carried": _is_carried(chosen)}
                list_archive(places.csv_dir, places.series_csv, **values, **more)
        plan_films(places, cutting=params.crops_of(chosen), **values, **transfer)


def data_check(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Compare the data lock with another one."""
    from miram.data.transfer.lock import check_lock

    record.read(layout.record("crops", chosen.name))
    print(f"the same: {check_lock(_places(chosen).lock, arguments.file)} instances")


def images(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Make crops of own images; with `--check` only check them."""
    from miram.data.own_images.overview import require_positive
    from miram.data.own_images.stage import Places, import_images
    from miram.data.own_images.table import read_table

    if chosen.source != params.IMAGES:
        raise ParameterError(f"source is {chosen.source}: `miram crops` cuts its films.", "Allowed: source: images.")
    name, values = chosen.name, params.stage_values(chosen, "images")["images"]
    table = read_table(Path(values["table_csv"]), Path(values["folder"]))
    require_positive(chosen.sources.images.positive, [lesion.label for lesion in table.lesions if lesion.label])
    if arguments.check:
        _check_images(chosen, table, values)
        return
    cut = _places(chosen)
    places = Places(
        *(cut.crops_dir, cut.lesions_csv, cut.set_aside_csv, cut.backgrounds_csv),
        pictures_csv=layout.pictures(name),
        overview_md=layout.overview(name),
    )
    inputs = [Path(values["table_csv"])]
    do_stage(chosen, "images", inputs, places.tables, lambda: import_images(table, places, **values))


def _check_images(chosen: params.Params, table: "Table", values: dict[str, Any]) -> None:
    """Report how own images are read, and show some; raises the error that would stop the run."""
    from miram.data.own_images.stage import check_images
    from miram.report.images_check import write_check
    from miram.train.augment import resize

    side, protocols = chosen.pretrain.side, chosen.splits.protocols
    divisions = [params.stage_values(chosen, "splits", protocol) for protocol in protocols]
    found = check_images(table, shown=SHOWN, divisions=divisions, **values)
    positive = chosen.sources.images.positive
    of = "no class" if positive is None else positive
    text = f"Sensitivity is measured for: {of} (sources.images.positive).\n\n{found.text}"
    page = layout.images_check(chosen.name)
    views = [(sample.label, sample.text, resize(sample.crop, side)) for sample in found.samples]
    write_check(page, chosen.name, text, views, found.fault.message if found.fault else "")
    print(f"{text}\nLook at the crops: {page}")
    if found.fault:
        raise found.fault


def recipe(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Print the table of a public data set, and on standard error its content and what is left out."""
    from miram.data.recipes.table import tabulated

    folder, module = arguments.folder, import_module(f"miram.data.recipes.{arguments.recipe.replace('-', '_')}")
    table, left_out = tabulated(module.findings(folder), folder, arguments.task)
    table.to_csv(sys.stdout, index=False, lineterminator="\n")
    counts = ", ".join(f"{label} {count}" for label, count in table["label"].value_counts().sort_index().items())
    pictures, patients = table["image"].nunique(), table["patient"].nunique()
    print(f"{len(table)} lesions of {pictures} pictures and {patients} patients: {counts}", file=sys.stderr)
    for reason, count in left_out.items():
        print(f"left out: {count} {reason}", file=sys.stderr)


def pack(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Pack the crops."""
    from miram.train.store import pack as pack_crops

    data = layout.data(chosen.name)
    source = layout.record("crops", chosen.name)
    record.read(source)
    store, extra_images, levels = store_of(chosen), chosen.pretrain.extra_images, chosen.sources.images.levels
    images = data / "crops", data / "lesions.csv", data / "backgrounds", data / "backgrounds.csv"
    inputs = [source, *layout.extra_files(extra_images)]
    extra = layout.extra_pictures(chosen.name)

    def work() -> dict[str, Any]:
        return {**pack_crops(*images, *store, extra, extra_images=extra_images, levels=levels)}

    do_stage(chosen, "pack", inputs, [*store, extra], work)


def splits(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Divide the lesions under one protocol."""
    from miram.data.splits import write_splits

    protocol = arguments.protocol
    check_known("protocol", protocol, chosen.splits.protocols)
    source, lesions = layout.record("crops", chosen.name), layout.data(chosen.name) / "lesions.csv"
    table = layout.splits(chosen.name, protocol)
    record.read(source)
    values = params.stage_values(chosen, "splits", protocol)
    do_stage(chosen, "splits", [source], [table], lambda: {**write_splits(lesions, table, **values)}, protocol)


def audit(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Audit the lesions and their splits."""
    from miram.data.audit import audit as examine

    _require_archive(chosen, "`miram images` says what leaks between their parts")
    run, data = chosen.name, layout.data(chosen.name)
    protocols = chosen.splits.protocols
    inputs = [layout.record("crops", run), *(layout.record("splits", run, name) for name in protocols)]
    for path in inputs:
        record.read(path)
    splits_csvs: dict[str, Path] = {name: layout.splits(run, name) for name in protocols}
    outputs = layout.result_files("audit", run)

    def work() -> dict[str, Any]:
        return examine(data / "lesions.csv", data / "set_aside.csv", splits_csvs, *outputs, preset=chosen.title)

    do_stage(chosen, "audit", inputs, outputs, work)


def _tries(chosen: params.Params) -> dict[str, Any]:
    return {name: getattr(chosen.transfer, name) for name in ("attempts", "timeout_seconds", "backoff_seconds")}


def _is_carried(chosen: params.Params) -> bool:
    """Whether the archive is CBIS-DDSM, whose case lists come with this software."""
    from miram.data.cbis_ddsm.cases import carries

    return not params.is_embedded(chosen) and carries(params.stage_values(chosen, "catalogue")["settings"])


def _places(chosen: params.Params) -> Any:
    """The files and folders of the stage crops."""
    from miram.data.transfer.films import Places

    data = layout.data(chosen.name)
    return Places(
        csv_dir=data / "csv",
        series_csv=data / "series.csv",
        dicom_dir=data / "dicom",
        crops_dir=data / "crops",
        backgrounds_dir=data / "backgrounds",
        ledger=layout.ledger(chosen.name),
        lesions_csv=data / "lesions.csv",
        set_aside_csv=data / "set_aside.csv",
        backgrounds_csv=data / "backgrounds.csv",
        lock=data / layout.LOCK,
    )


def _restore_archive(chosen: params.Params) -> None:
    """Write the embedded archive again if `dvc pull` brought only its record, as it brings no films."""
    folder = layout.data(chosen.name) / "archive"
    if not params.is_embedded(chosen) or (folder / "archive.json").exists():
        return
    if layout.record("archive", chosen.name).exists():
        from miram.phantom.archive import write_archive

        write_archive(folder, **params.stage_values(chosen, "archive")["archive"])
        record.read(layout.record("archive", chosen.name))


def _require_archive(chosen: params.Params, instead: str) -> None:
    if chosen.source == params.IMAGES:
        raise ParameterError(f"source is images: {instead}.", "Allowed here: source: tcia, idc or local.")


@contextmanager
def _source(chosen: params.Params) -> Iterator[dict[str, Any]]:
    """The source and its settings; the embedded archive is served while the block runs."""
    _require_archive(chosen, "`miram images` reads them")
    values = params.stage_values(chosen, "catalogue")
    if not params.is_embedded(chosen):
        yield values
        return
    from miram.phantom.server import running

    with running(layout.data(chosen.name) / "archive") as (api_url, csv_url):
        yield {**values, "settings": {**values["settings"], "api_url": api_url, "csv_url": csv_url}}
