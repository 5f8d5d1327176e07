"""Who may import whom: the house rules of CONTRIBUTING.md, enforced."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "miram"
TORCH = {"torch", "timm", "torchvision", "lightning_fabric"}

ROW = re.compile(r"^\| (`miram/[^|]*) \| [^|]* \| ([^|]*) ?\|$", re.MULTILINE)


def forbidden() -> dict[str, set[str]]:
    """Part of the package, "" for all of it -> what it may not import, as the table of CONTRIBUTING.md says."""
    rules = {}
    for parts, names in ROW.findall((PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        own = {name for name in names.replace(" ", "").split(",") if name}
        found = {f"miram.{name}" if (PACKAGE / name).is_dir() else name for name in own}
        for part in re.findall(r"`miram/([^`]*?)/?`", parts):
            rules[part] = found | TORCH if "torch" in own else found
    return rules


FORBIDDEN = forbidden()


def test_the_table_of_rooms_names_every_part_of_the_package():
    parts = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert FORBIDDEN.keys() - {""} == parts - {"__init__.py"}
    assert FORBIDDEN[""] == {"snakemake", "dvc", "benchmarks"}
    assert FORBIDDEN["models"] >= {"miram.data", "miram.train"} and FORBIDDEN["data"] > TORCH


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
