"""Who may import whom: the house rules of CONTRIBUTING.md, enforced."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "miram"
TORCH = {"torch", "timm", "torchvision", "lightning_fabric"}


def rooms(*names: str) -> set[str]:
    return {f"miram.{name}" for name in names}


FORBIDDEN = {  # part of the package -> what it may not import
    "": {"snakemake", "dvc", "benchmarks"},
    "params": TORCH,
    "provenance": TORCH,
    "layout.py": TORCH,
    "kinds.py": TORCH,
    "looks.py": TORCH,
    "errors.py": TORCH,
    "files.py": TORCH,
    "progress.py": TORCH,
    "models": {
        f"miram.{room}"
        for room in ("params", "provenance", "planning", "data", "phantom", "train", "evaluate", "report")
    },
    "phantom": TORCH | rooms("params", "planning", "models", "train", "evaluate", "report"),
    "data": TORCH | rooms("params", "planning", "phantom", "models", "train", "evaluate", "report"),
    "train": rooms("params", "planning", "phantom", "evaluate", "report"),
    "evaluate": TORCH | rooms("params", "planning", "data", "phantom", "models", "train", "report"),
    "report": TORCH | rooms("params", "planning", "data", "phantom", "models", "train"),
}


def imported(source: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{source}: imports are absolute"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("source", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_imports_what_its_part_may_not(source):
    place = source.relative_to(PACKAGE).as_posix()
    if not place.startswith("cli/"):
        found = {name for name in imported(source) if f"{name}.".startswith("miram.cli.")}
        assert not found, f"miram/{place} imports the command line: {sorted(found)}"
    for part, forbidden in FORBIDDEN.items():
        if place == part or part == "" or place.startswith(f"{part}/"):
            found = {
                name for name in imported(source) for rule in forbidden if name == rule or name.startswith(f"{rule}.")
            }
            assert not found, f"miram/{place} imports {sorted(found)}"


def test_only_one_module_imports_timm():
    found = [
        path.name for path in PACKAGE.rglob("*.py") if any(name.split(".")[0] == "timm" for name in imported(path))
    ]
    assert found == ["_timm.py"]
