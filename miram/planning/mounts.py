"""The user's folders that a container needs in addition to the working folder, the only one mounted by default."""

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from miram.errors import MiramError
from miram.provenance.record import IMAGE


def folders_outside(given: Iterable[Path], files: Iterable[Path], made: Iterable[Path]) -> list[Path]:
    """The existing folders, none below another, outside the working folder that jobs use.

    `given`: files and folders that the parameters name. `files`: images below those, which may be links to elsewhere.
    `made`: folders that the stages write; one of them may be a link to a larger disk.
    """
    here = Path.cwd()
    found = {_folder(place) for path in given if path.exists() for place in (_whole(path), path.resolve())}
    found |= {next(place for place in (real, *real.parents) if place.exists()) for real in map(Path.resolve, made)}
    linked = {path.resolve().parent for path in files}
    linked = {folder for folder in linked if not any(map(folder.is_relative_to, (here, *found)))}
    if linked:
        shared = Path(os.path.commonpath(linked))
        found |= linked if shared == Path("/") else {shared}
    return _widest(folder for folder in found if not folder.is_relative_to(here))


def bind_options(folders: Iterable[Path]) -> list[str]:
    """Apptainer's option for each folder, under its own name inside. Raises MiramError for one that it cannot mount."""
    for folder in folders:
        if set(",:") & set(str(folder)):
            raise MiramError(f"Apptainer cannot mount {folder}: its path has a comma or a colon.", "Rename it.")
    return [f"--bind {shlex.quote(str(folder))}" for folder in folders]


def check_mounted(given: Mapping[str, Path]) -> None:
    """Raise MiramError, with what to mount, if a path that a parameter names is missing in a container of ours."""
    lost = {name: path for name, path in given.items() if not path.exists()}
    if lost and os.environ.get(IMAGE):
        options = " ".join(f"--volume YOURS:{place}:ro" for place in _widest(map(_whole, lost.values())))
        raise MiramError(
            f"This container has no {', '.join(f'{path} ({name})' for name, path in lost.items())}.",
            f"Mount it, with its path on your machine in place of YOURS: docker run {options} (Apptainer: --bind).",
        )


def _whole(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _widest(places: Iterable[Path]) -> list[Path]:
    """Those of the folders that are not below another one."""
    places = set(places)
    return sorted(place for place in places if places.isdisjoint(place.parents))
