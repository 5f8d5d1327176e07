"""Records: the small JSON file that a stage writes last, with the provenance of its outputs. Later stages depend on it.

A record holds the stage's values (including seeds), the digests of its inputs, outputs, code, lock and container image
(None outside one), the commit, the versions, the machine, and start and end; for training also the device and torch's
CPU capability. Presence of a file proves nothing: a reader checks it against its record.
"""

import ast
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from miram import __version__
from miram.errors import MiramError
from miram.files import atomic_path, sha256_file
from miram.stages import STAGES

PACKAGES = ("torch", "timm", "lightning-fabric", "numpy", "pandas", "pydicom", "scikit-learn", "snakemake", "dvc")
INFRASTRUCTURE = {f"miram.{name}" for name in ("errors", "files", "layout", "progress", "provenance.record", "stages")}
ROOT = Path(__file__).parent.parent  # of the package
KEYS = {"stage", "values", "inputs", "outputs"}
NAMED_CODE = re.compile(rf"{ROOT.name}(\.\w+)+:\w+")  # how miram.kinds names the code that it does not import
BUILDERS = {f"{ROOT.name}.models.{name}" for name in ("build", "attention")}  # which call that code
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
LOCK = ROOT.parent / "requirements.lock"
IMAGE = "MIRAM_IMAGE"  # environment variable with the digest of the container's image, which the image sets
IMAGE_LOCK = "MIRAM_LOCK"  # another, with the lock of the image's packages
CPU_INFO = Path("/proc/cpuinfo")  # Linux names the processor's model there
BUILT_FROM = ROOT.parent / "commit.json"  # in an image, next to the code: the commit that it was copied from
# git refuses repositories of another user (a shared clone, a bind mount), whose configuration it might run; here that
# user's code runs anyway
GIT = ("git", "-c", "safe.directory=*", "--no-optional-locks")
OUTSIDE = "not a git repository"  # what git says, in English, where there is none
PAGES = {"miram.report.report": "report/page/*"}  # non-Python files that are code of a module


def begin(path: Path, *, stage: str, values: dict[str, Any], inputs: Iterable[Path]) -> dict[str, Any]:
    """Record inputs, code and environment before the stage runs, as they may change meanwhile; delete the old record.

    Raises MiramError in an image whose packages are not those of the lock next to the code.
    """
    _check_image()
    path.unlink(missing_ok=True)
    return {
        "stage": stage,
        "values": values,
        "inputs": {str(file): sha256_file(file) for file in inputs},
        "code": code_digest(stage),
        "lock": lock_digest(),
        "image": os.environ.get(IMAGE),
        "git": _git(),
        "versions": {"miram": __version__, "python": platform.python_version(), **_versions()},
        "machine": {"system": platform.platform(), "processor": processor_name()},
        "started": _now(),
    }


def finish(path: Path, begun: dict[str, Any], *, outputs: Iterable[Path], facts: dict[str, Any]) -> None:
    """Write the record of a stage that succeeded; `facts` are its measurements."""
    written = {str(file): sha256_file(file) for file in outputs}
    record = {**begun, "outputs": written, "facts": facts, "ended": _now()}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """A stage's record, after checking that its inputs and outputs are unchanged.

    A missing input is allowed, as it may have been left behind. Raises MiramError if the record is missing or damaged,
    an output is missing, or an output or input has other bytes.
    """
    remedy = f"Delete {path} and run again: the stage that writes it is then repeated."
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        inputs, outputs = record["inputs"], record["outputs"]
    except FileNotFoundError as error:
        raise MiramError(
            f"There is no record {path}.", "Run the stage before this one first, or the whole workflow."
        ) from error
    except (ValueError, KeyError) as error:
        raise MiramError(f"The record {path} is damaged: {error}", remedy) from error
    for file, digest in outputs.items():
        if not Path(file).exists():
            raise MiramError(f"{file}, named by {path}, is missing.", remedy)
        if sha256_file(Path(file)) != digest:
            raise MiramError(f"{file} is not the file that {path} describes: its SHA-256 differs.", remedy)
    for file, digest in inputs.items():
        if Path(file).exists() and sha256_file(Path(file)) != digest:
            raise MiramError(f"{path} was made from another {file} than the present one.", remedy)
    return record


def made_by(stage: str) -> dict[str, str | None]:
    """What a stage's result depends on beside its values and inputs: the code and, of training, the lock."""
    lock = {"lock": lock_digest()} if STAGES[stage].on_gpu else {}
    return {"code": code_digest(stage), **lock}


def is_current(path: Path, *, stage: str, values: dict[str, Any]) -> bool:
    """Whether a record is of these values and of the present code, and `read` finds nothing wrong with it."""
    try:
        made = read(path)
    except (MiramError, OSError):  # also of an output in whose place there is a folder
        return False
    wanted = json.loads(json.dumps({"stage": stage, "values": values, **made_by(stage)}))
    return wanted.items() <= made.items()


def is_record(path: Path) -> bool:
    """Whether a file is the record of a stage, valid or not."""
    try:
        return path.suffix == ".json" and json.loads(path.read_text(encoding="utf-8")).keys() >= KEYS
    except (OSError, ValueError, AttributeError):
        return False


def lock_digest() -> str | None:
    """SHA-256 of requirements.lock; None if the package comes without it."""
    return sha256_file(LOCK) if LOCK.exists() else None


def processor_name() -> str:
    """The processor's model; if the system does not name it, the kind of machine."""
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _check_image() -> None:
    built_with = os.environ.get(IMAGE_LOCK)
    if built_with and LOCK.exists() and sha256_file(Path(built_with)) != lock_digest():
        raise MiramError(f"The image was built with another lock than {LOCK}.", "Build it again: make image sif.")


def code_digest(stage: str) -> str:
    """SHA-256 of the code of a stage; see `module_digest`."""
    return module_digest(STAGES[stage].module)


@cache
def module_digest(module: str) -> str:
    """SHA-256 of the syntax trees of a module and of all modules of this package that it imports.

    If it builds models, this includes the modules that `miram.kinds` names.
    It changes with any code below a stage, but not with comments, layout or docstrings, nor with the modules in
    INFRASTRUCTURE, which do not affect results. Another Python version may give another digest.
    """
    digest = hashlib.sha256()
    for name, tree in sorted(_closure(module).items()):
        digest.update(f"{name}\n{tree}\n".encode())
        for file in sorted(ROOT.glob(PAGES[name])) if name in PAGES else []:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _closure(module: str) -> dict[str, str]:
    found: dict[str, str] = {}
    waiting, named = [module], set()
    while waiting:
        name = waiting.pop()
        path = _source(name)
        if name in found or path is None or name in INFRASTRUCTURE:
            continue
        found[name], imported, own = _parsed(path)
        waiting += imported
        named.update(own)
        if found.keys() & BUILDERS:
            waiting, named = [*waiting, *named], set()
    return found


@cache
def _parsed(path: Path) -> tuple[str, list[str], list[str]]:
    """The syntax tree of a file without docstrings, as text, and the modules that it imports and names.

    Cached, as most stages share most files.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported, named = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and NAMED_CODE.fullmatch(str(node.value)):
            named.append(str(node.value).partition(":")[0])
        elif isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree), imported, named


def _source(module: str) -> Path | None:
    """The file of a module of this package; None for any other, and for a name that is not a module."""
    parts = module.split(".")
    if parts[0] != ROOT.name:
        return None
    path = ROOT.joinpath(*parts[1:])
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


def _now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git() -> dict[str, Any] | None:
    """Commit of the source and whether the tree differs from it, including new code; None if git does not say."""
    if BUILT_FROM.exists():
        return json.loads(BUILT_FROM.read_text(encoding="utf-8"))
    try:
        commit = _ask_git("rev-parse", "HEAD")
        changed = _ask_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!dvc.lock")
        added = _ask_git("ls-files", "--others", "--exclude-standard", "--", ROOT.name, "workflow")
    except OSError:
        return None
    except subprocess.CalledProcessError as error:
        if OUTSIDE not in error.stderr:
            print(f"warning: the record will name no commit, because git says: {error.stderr.strip()}", file=sys.stderr)
        return None
    return {"commit": commit, "dirty": bool(changed or added)}


def _ask_git(*words: str) -> str:
    return subprocess.run(
        [*GIT, *words],
        check=True,
        capture_output=True,
        cwd=ROOT.parent,
        env={**os.environ, "LC_ALL": "C"},
        encoding="utf-8",
        errors="replace",
    ).stdout.strip()


def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
