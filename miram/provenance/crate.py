"""The results folder as an RO-Crate: ro-crate-metadata.json says what made the results, even without records.

https://w3id.org/ro/crate, with the profiles of `workflow_run`. The crate lists each results file with its SHA-256 and,
from all records behind them, the values, commits, code, images, packages and machines. So `miram verify` and
`miram compare` need only the results folder.
"""

import json
import mimetypes
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate
from rocrate.utils import as_list

from miram import __version__
from miram.errors import MiramError
from miram.files import atomic_path, sha256_file
from miram.layout import METADATA, is_result
from miram.provenance import record
from miram.provenance.workflow_run import ROCRATE, RUN, add_entity, add_profiles, add_run, add_workflow

LICENCE = "https://spdx.org/licenses/Apache-2.0"
SOFTWARE = "#miram"
PARAMETER = "#parameter/"  # and the stage and the dotted name of a value
MACHINE = "#machine"
TORCH = ("device", "cpu_capability", "threads")  # facts of the stages that use it
SOURCE = "https://doi.org/10.7937/k9/tcia.2016.7o02s9cy"
SOURCE_FACTS = {"name": "CBIS-DDSM", "license": "https://creativecommons.org/licenses/by/3.0/"}


def write_crate(
    final_records: Iterable[Path], data_files: Iterable[Path], out_dir: Path, *, workflow: Path, preset: str
) -> dict[str, object]:
    """Describe the files in `out_dir` that `final_records`, or a record that they are made from, wrote.

    `data_files` are copied there and described as well: the lock of the data, since the data cannot be published with
    the results. So is `workflow`, the file that was run: the crate's main entity. Files of an earlier run that no
    record names are removed; files of other names stay. The source and licence of own images are unknown. Two
    runs on one day from the same records write the same bytes. Returns counts. Raises MiramError if a record does not
    match its files.
    """
    out_dir = Path(out_dir)
    records = _behind(final_records)
    crate = ROCrate(version=ROCRATE)
    of_cbis = all(made["stage"] != "images" for made in records.values())
    crate.name = f"MIRAM on {'lesions of CBIS-DDSM' if of_cbis else 'own images'}, preset {preset}"
    crate.description = "Tables and figures with their provenance. Demo results have no medical meaning."
    crate.license = add_entity(crate, {"@id": LICENCE, "@type": "CreativeWork", "name": "Apache License 2.0"})
    crate.datePublished = datetime.now(UTC).date()
    add_profiles(crate)
    software = add_entity(crate, {"@id": SOFTWARE, "@type": "SoftwareApplication", **_software(records.values())})
    software["softwareRequirements"] = _packages(crate, records.values())
    machine = add_entity(crate, {"@id": MACHINE, "@type": "IndividualProduct", "name": "The machines that computed"})
    machine["additionalProperty"] = _properties(crate, f"{MACHINE}/", machines(records.values()))
    crate.root_dataset["mentions"] = [machine]
    copies = [_copied(path, out_dir) for path in (*data_files, workflow)]
    written = _outputs(records.values(), out_dir) | {path.name: sha256_file(path) for path in copies}
    _remove_others(out_dir, {*written, METADATA})
    described = {name: {"sha256": sha256, **_facts(out_dir / name)} for name, sha256 in sorted(written.items())}
    add_workflow(crate, copies[-1], described.pop(copies[-1].name) | {"version": __version__, "license": LICENCE})
    files = {out_dir / name: crate.add_file(out_dir / name, name, properties=described[name]) for name in described}
    datasets = [crate.add_dataset(SOURCE, properties=SOURCE_FACTS)] if of_cbis else []
    parameters: dict[str, list[ContextEntity]] = {}
    for value in _properties(crate, PARAMETER, summary((made["stage"], made["values"]) for made in records.values())):
        parameters.setdefault(value["name"].partition(".")[0], []).append(value)
    add_run(crate, records, software=software, datasets=datasets, parameters=parameters, files=files)
    with atomic_path(out_dir / METADATA) as temporary:
        temporary.write_text(json.dumps(crate.metadata.generate(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return {"files": len(written), "records": len(records)}


def read_crate(folder: Path) -> tuple[dict[str, str], dict[str, list[Any]]]:
    """The SHA-256 of each file in the crate of `folder`, and its parameters in the form of `summary`.

    Raises MiramError if there is no crate or it is damaged.
    """
    with _opened(folder) as crate:
        action = crate.get(RUN)
        described = as_list(action["result"]) + as_list(crate.mainEntity or [])
        files = {file.id: file["sha256"] for file in described}
        values = [entity for entity in as_list(action.get("object", [])) if entity.id.startswith(PARAMETER)]
        return files, {entity["name"]: json.loads(entity["value"]) for entity in values}


def read_origin(folder: Path) -> dict[str, list[str]]:
    """What the crate in `folder` says about the code and the machines: the distinct values of each name, as text.

    Names: `commit`, `image`, `requirements.lock`, `code <stage>`, the packages, and those of `machines`. Unknown facts
    are left out: crates of earlier versions have no packages and no machines. Raises as `read_crate`.
    """
    found: dict[str, list[str]] = {}
    with _opened(folder) as crate:
        software, machine = crate.get(SOFTWARE), crate.get(MACHINE)
        for text in software["identifier"]:
            name, _, value = text.partition(":")
            if name == "code":
                stage, _, value = value.partition(":")
                name = f"code {stage}"
            found.setdefault(name, []).append(value)
        for package in software.get("softwareRequirements", []):
            found[package["name"]] = package["softwareVersion"].split(" or ")
        for entity in machine["additionalProperty"] if machine else []:
            found[entity["name"]] = [str(value) for value in json.loads(entity["value"])]
    return found


@contextmanager
def _opened(folder: Path) -> Iterator[ROCrate]:
    """The crate in `folder`; in the block, missing or malformed entries raise MiramError."""
    path = Path(folder) / METADATA
    remedy = "Restore it from the repository, or run the workflow."
    if not path.is_file():
        raise MiramError(f"There is no {path}.", remedy)
    try:
        yield ROCrate(folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MiramError(f"{path} is damaged: {error}", remedy) from error


def summary(jobs: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, list[Any]]:
    """(stage, values) of each job as the distinct values of each `stage.name`, in the order of their JSON."""
    found: dict[str, set[str]] = {}
    for stage, values in jobs:
        for name, value in _flat(values).items():
            found.setdefault(f"{stage}.{name}", set()).add(json.dumps(value, sort_keys=True))
    return {name: [json.loads(value) for value in sorted(found[name])] for name in sorted(found)}


def machines(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The distinct facts of the records' machines; for stages that use torch also the device."""
    told = [
        made["machine"] | {name: made["facts"][name] for name in TORCH if name in made["facts"]} for made in records
    ]
    return {
        name.removeprefix("machine."): values for name, values in summary(("machine", facts) for facts in told).items()
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, of dotted names."""
    pairs: dict[str, Any] = {}
    for name, value in values.items():
        pairs |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return pairs


def _behind(paths: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """Records, each checked against its files, and those that they depend on, whose files may be missing."""
    records = {Path(path): record.read(path) for path in paths}
    waiting = [name for made in records.values() for name in made["inputs"]]
    while waiting:
        path = Path(waiting.pop())
        if path not in records and record.is_record(path):
            records[path] = json.loads(path.read_text(encoding="utf-8"))
            waiting += records[path]["inputs"]
    return records


def _outputs(records: Iterable[Mapping[str, Any]], folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of the files that the records wrote into `folder`."""
    written = {Path(name): sha256 for made in records for name, sha256 in made["outputs"].items()}
    return {
        path.relative_to(folder).as_posix(): sha256 for path, sha256 in written.items() if path.is_relative_to(folder)
    }


def _remove_others(folder: Path, kept: Collection[str]) -> None:
    """Remove files of another run; others, such as a user's README, have different names."""
    for path in folder.iterdir():
        if path.name not in kept and is_result(path.name) and not path.is_dir():
            path.unlink()


def _copied(path: Path, folder: Path) -> Path:
    with atomic_path(folder / path.name) as temporary:
        shutil.copyfile(path, temporary)
    return folder / path.name


def _software(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The version and the distinct code facts of the records."""
    records = list(records)
    commits = {f"{made['git']['commit']}{'+changes' * made['git']['dirty']}" for made in records if made["git"]}
    images = {made["image"] for made in records if made.get("image")}
    code = {f"{made['stage']}:{made['code']}" for made in records}
    locks = {made["lock"] for made in records if made["lock"]}
    told = {"commit": commits, "image": images, "code": code, "requirements.lock": locks}
    return {
        "name": "miram",
        "version": __version__,
        "license": LICENCE,
        "identifier": sorted(f"{name}:{value}" for name, values in told.items() for value in values),
    }


def _packages(crate: ROCrate, records: Iterable[Mapping[str, Any]]) -> list[ContextEntity]:
    """Python and each package of the records with its versions, more than one where stages had several."""
    found = summary(("", made["versions"]) for made in records)
    return [
        add_entity(
            crate,
            {
                "@id": f"#package/{name[1:]}",
                "@type": "SoftwareApplication",
                "name": name[1:],
                "softwareVersion": " or ".join(filter(None, versions)),
            },
        )
        for name, versions in found.items()
        if any(versions) and name != ".miram"
    ]


def _properties(crate: ROCrate, prefix: str, values: Mapping[str, list[Any]]) -> list[ContextEntity]:
    return [
        add_entity(
            crate, {"@id": f"{prefix}{name}", "@type": "PropertyValue", "name": name, "value": json.dumps(found)}
        )
        for name, found in values.items()
    ]


def _facts(path: Path) -> dict[str, str]:
    kind = mimetypes.guess_type(path.name)[0]
    return {"contentSize": str(path.stat().st_size)} | ({} if kind is None else {"encodingFormat": kind})
