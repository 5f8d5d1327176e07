"""How long code may be, and where plain values still have no type: held for the whole package."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "miram").rglob("*.py"))
FILE_LINES, FUNCTION_LINES, STOPS = 300, 60, 6
TYPED = ("train", "models", "bench", "planning/memory.py", "planning/hours.py", "data/cutting.py", "data/crop_rules.py")
READ = {
    "architecture",
    "host",
    "keywords",
    "lesion",
    "measured",
    "results",
    "state",
    "seen",
    "config",
    "content",
}  # JSON of benches, records and networks' files, rows of the case lists, torch's state, a window of crops
WORDS = {"dict[str, Any]", "Mapping[str, Any]", "dict", "Mapping"}


def functions(source):
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def too_long(sources):
    """Files and functions beyond the limits, from `def` to the last line."""
    found = [str(path) for path in sources if len(path.read_text(encoding="utf-8").splitlines()) > FILE_LINES]
    for path in sources:
        lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions(path)}
        found += [f"{path}: {name}, {lines} lines" for name, lines in lengths.items() if lines > FUNCTION_LINES]
    return found


def test_no_file_is_above_300_lines_and_no_function_above_60():
    assert not too_long(SOURCES)


def test_what_is_too_long_is_named(tmp_path):
    (tmp_path / "file.py").write_text("\n" * 301)
    (tmp_path / "function.py").write_text("def long():\n" + "    pass\n" * 60)
    assert too_long(sorted(tmp_path.iterdir())) == [
        str(tmp_path / "file.py"),
        f"{tmp_path / 'function.py'}: long, 61 lines",
    ]


def is_typed_part(source):
    return source.relative_to(ROOT / "miram").as_posix().startswith(TYPED)


@pytest.mark.parametrize(
    "source", filter(is_typed_part, SOURCES), ids=lambda path: str(path.relative_to(ROOT / "miram"))
)
def test_values_of_parameters_reach_the_networks_as_dataclasses_and_not_as_plain_dicts(source):
    for function in functions(source):
        arguments = [*function.args.args, *function.args.kwonlyargs]
        plain = {one.arg for one in arguments if one.annotation and ast.unparse(one.annotation) in WORDS}
        assert plain <= READ, f"{function.name} of {source} takes {sorted(plain - READ)} without naming their fields"


def traces():
    """Heading -> (place, file, what it names there), of the tables of docs/method.md that follow a parameter."""
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    parts = re.findall(r"^\*\*`(\S+)`\*\*\n\n((?:\|.*\n)+)", text, re.MULTILINE)
    return {name: re.findall(r"^\| (?:\d) \| `([^`]+)` \| `([^`]+)` \|$", table, re.MULTILINE) for name, table in parts}


@pytest.mark.parametrize("name", ["pretrain.mask_ratio", "methods.*.attention", "finetune.lr"])
def test_a_parameter_passes_at_most_six_places_under_one_name_and_each_is_there(name):
    found = traces()[name]
    own = name.rpartition(".")[2]
    assert 3 <= len(found) <= STOPS
    for place, file in found:
        source = ROOT / file
        text = source.read_text(encoding="utf-8")
        if source.suffix == ".py":
            parts = place.split(".")
            body = ast.parse(text).body
            for part in parts:
                (node,) = (one for one in body if getattr(one, "name", None) == part)
                body = getattr(node, "body", [])
            text = ast.unparse(node)
        assert re.search(rf"\b{own}\b", text), f"{place} of {file} does not name {own}"
