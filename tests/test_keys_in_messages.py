"""A parameter that a message names can be found in params.yaml."""

import ast
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args

from miram.params.schema import Method, Params

PACKAGE = Path(__file__).parent.parent / "miram"
FILES = {"csv", "json", "npz", "parquet", "png", "safetensors", "u8"}  # what ends the name of a file, and no key
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef


def keys_of(kind, place=""):
    """Every key below a section's class, dotted."""
    for field in fields(kind):
        name = f"{place}{field.name.rstrip('_')}"  # `crops.from` is no name in Python
        yield name
        for inner in (field.type, *get_args(field.type)):
            if is_dataclass(inner):
                yield from keys_of(inner, f"{name}.")


KEYS = {*keys_of(Params), *(f"methods.{name}" for name in keys_of(Method))}


def named_in(source):
    """Each "section.key" in a module's strings, docstrings aside."""
    tree = ast.parse(source)
    nodes = [node for node in ast.walk(tree) if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None]
    docstrings = {id(node.body[0].value) for node in nodes}
    sections = "|".join(field.name for field in fields(Params) if any(key.startswith(f"{field.name}.") for key in KEYS))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            for key in re.findall(rf"(?<![\w./-])(?:{sections})(?:\.\w+)+", node.value):
                if key.rpartition(".")[2] not in FILES:
                    yield key


def test_every_key_that_a_message_names_exists():
    named = {(path.name, key) for path in PACKAGE.rglob("*.py") for key in named_in(path.read_text())}
    assert {key for _, key in named} >= {"compute.compile", "finetune.batch", "sources.images.table_csv"}
    assert not {(file, key) for file, key in named if key not in KEYS}


def test_a_key_of_another_section_is_found():
    assert list(named_in('"""pretrain.in_a_docstring"""\nsay("set pretrain.compile: false in pretrain.json")')) == [
        "pretrain.compile"
    ]
    assert "pretrain.compile" not in KEYS
