"""Reading a parameter file: one preset resolved and checked, each error named with its key."""

import json
import re
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from miram import kinds, layout
from miram.errors import ParameterError
from miram.params.schema import DEMO, IMAGES, PRESETS, SMALL, Method, Params, Pretrain, WrittenMethod, WrittenParams
from miram.params.stages import is_embedded
from miram.params.together import check_together

# sections that a preset with a base may set
TRAINING = ("highres", "methods", "encoders", "pretrain", "finetune", "compute")
T = TypeVar("T")
RENAMED = {  # by the present name of a value
    ("splits.protocols", "paper"): "published",
    ("finetune.modes", "full"): "finetune",
}
RENAMED_KEYS = {  # pattern of the key before -> now
    r"(pretrain|methods\.[^.]+)\.seed": "pretrain.seeds, a list",
    r"finetune\.imagenet_init": "encoders, where each row has a name, a network of timm and a file",
}
UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")  # pydantic's names of the error


class UniqueKeys(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys, of which YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """As the parent, after checking the keys."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(path: Path, preset: str | None = None) -> Params:
    """Read a parameter file; `preset` replaces the file's own choice.

    All presets are checked, so that errors in another one show early. Raises ParameterError with the key, its value and
    what is allowed.
    """
    path = Path(path)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), UniqueKeys)
    except OSError as error:
        raise ParameterError(
            f"The parameter file {path} cannot be read: {error.strerror}.",
            "Run in the project's folder, or name another: --params FILE.",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is not valid YAML: {error}", "Correct the line that it names.") from error
    if not isinstance(document, dict) or not isinstance(document.get("presets"), dict):
        raise ParameterError(f"{path} has no mapping `presets`.", "Start from the project's own params.yaml.")
    chosen = document.get("preset") if preset is None else preset
    if chosen not in PRESETS:
        raise ParameterError(f"preset: {chosen!r} in {path}", f"Allowed: {', '.join(PRESETS)}.")
    if set(document["presets"]) != set(PRESETS):
        raise ParameterError(
            f"presets: {list(document['presets'])} in {path}", f"It holds exactly: {', '.join(PRESETS)}."
        )
    params = {name: _resolve(document, name, path) for name in PRESETS}[chosen]
    if chosen == DEMO and not is_embedded(params) and params.source != IMAGES:
        raise ParameterError(
            f"source: {params.source} in {path} with preset {DEMO}, whose results say that they are of phantom lesions",
            "Choose preset paper, or source tcia, where the demo finds its archive; source images goes with both.",
        )
    if params.compute.accelerator == "cpu" and params.compute.precision == "16-mixed":
        raise ParameterError(
            f"compute.precision: 16-mixed in {path} with compute.accelerator: cpu; it needs a GPU",
            "Choose 32-true or bf16-mixed, or another accelerator.",
        )
    return params


def _resolve(document: dict[str, Any], preset: str, path: Path) -> Params:
    document = deepcopy(document)
    own_values = _preset_values(document.pop("presets"), preset)
    if not isinstance(own_values, dict):
        raise ParameterError(f"presets.{preset} is {own_values!r} in {path}", "It must be a mapping of sections.")
    shared = {**document, "preset": preset}
    if preset == SMALL:
        merged = _replaced(shared, own_values)
        tuning = merged.get("finetune")
        if document.get("source") == IMAGES and isinstance(tuning, dict) and tuning.get("tasks") == ["label"]:
            merged |= {key: document[key] for key in ("source", "crops") if key in document}
    else:
        merged = _merge(shared, own_values, f"presets.{preset}", "")
    pretrain_names = {field.name for field in fields(Pretrain)}
    methods = merged.get("methods")
    own = {}
    if isinstance(methods, dict):
        for name, values in methods.items():
            _check_name("methods", name, path)
            if isinstance(values, dict):
                own[name] = {key: values.pop(key) for key in list(values) if key in pretrain_names}
    written = _validated(WrittenParams, merged, path, "")
    for name in written.encoders:
        _check_name("encoders", name, path, tuple(written.methods))
    _check_data_name(written.sources.images.name, path)
    resolved = {}
    for name, method in written.methods.items():
        place = f"methods.{name}"
        common = {key: value for key, value in merged["pretrain"].items() if key in pretrain_names}
        pretrain = _validated(Pretrain, {**common, **own[name]}, path, place)
        _check_unread(method, own[name], path, place)
        if "attention" in kinds.OBJECTIVES[method.objective].reads:
            _check_attention(method, path, place)
        resolved[name] = Method(**{f.name: getattr(method, f.name) for f in fields(WrittenMethod)}, pretrain=pretrain)
    values = {f.name: getattr(written, f.name) for f in fields(WrittenParams)}
    checked = Params(**{**values, "methods": resolved})
    check_together(checked, path)
    return checked


def _preset_values(presets: dict[str, Any], preset: str) -> Any:
    """What a preset sets; `paper-448` starts from `paper`, by its name, replaces its values and uses its data."""
    base, is_based, _ = preset.partition("-")
    own = presets[preset]
    if not is_based:
        return own
    if not isinstance(own, dict) or not set(own) <= set(TRAINING):
        raise ParameterError(
            f"presets.{preset} is {own!r}", f"In addition to its base it may set only {', '.join(TRAINING)}."
        )
    replaced = _replaced(presets[base], own)
    if isinstance(replaced.get("methods"), dict):  # null: a row of the base that this preset does not have
        replaced["methods"] = {name: values for name, values in replaced["methods"].items() if values is not None}
    return replaced


def _replaced(base: Any, own: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(own, dict):
        return own
    return base | {key: _replaced(base.get(key), value) for key, value in own.items()}


def _check_name(section: str, name: Any, path: Path, others: tuple[str, ...] = ()) -> None:
    taken = (layout.FROM_SCRATCH, *layout.TRIVIAL, *others)
    if not isinstance(name, str) or not re.fullmatch(layout.NAME, name) or name in taken:
        raise ParameterError(
            f"{section}.{name} in {path}",
            f"A row's name is text of a-z, 0-9 and -, a number in quotes; {', '.join(taken)} are taken.",
        )


def _check_data_name(name: str, path: Path) -> None:
    """Own data sets share no folder with a preset or the bench."""
    taken = (*PRESETS, layout.BENCH.name)
    if not re.fullmatch(layout.NAME, name) or name in taken or name.startswith(f"{layout.BASE}-"):
        raise ParameterError(
            f"sources.images.name: {name!r} in {path}",
            f"Allowed: a-z, 0-9 and -. {', '.join(taken)} and what begins with {layout.BASE}- are taken.",
        )


def _check_unread(method: WrittenMethod, own: dict[str, Any], path: Path, place: str) -> None:
    """Refuse a value that the objective does not read; `own`: the values of `pretrain` that a method sets."""
    values = {name: getattr(method, name) for name in kinds.ATTENTION_FIELDS}
    values |= {name: own.get(name) for name in kinds.MASKED_ONLY}
    for name, value in values.items():
        if value is not None and name not in kinds.OBJECTIVES[method.objective].values:
            raise ParameterError(
                f"{place}.{name}: {value!r} in {path}",
                f"Objective {method.objective} does not read {name}; remove the line.",
            )


def _check_attention(method: WrittenMethod, path: Path, place: str) -> None:
    if method.attention is None:
        raise ParameterError(f"{place}.attention is missing in {path}", f"Allowed: {', '.join(kinds.ATTENTION)}.")
    entry = kinds.ATTENTION[method.attention]
    if kinds.PACKAGE in entry.forms and method.backend is None:
        raise ParameterError(f"{place}.backend is missing in {path}", "Allowed: fused, package.")
    if kinds.PACKAGE not in entry.forms and method.backend is not None:
        raise ParameterError(
            f"{place}.backend: {method.backend!r} in {path}",
            f"Remove the line: attention {method.attention} has no choice of backend.",
        )
    _validated(entry.options, method.options or {}, path, f"{place}.options")


def _merge(shared: dict[str, Any], own: dict[str, Any], place: str, prefix: str) -> dict[str, Any]:
    """`shared` with the preset's own keys added; a key in both is refused."""
    merged = dict(shared)
    for key, value in own.items():
        name = f"{prefix}{key}"
        if key not in merged:
            merged[key] = value
        elif isinstance(merged[key], dict) and isinstance(value, dict):
            merged[key] = _merge(merged[key], value, place, f"{name}.")
        else:
            raise ParameterError(f"{name} occurs twice: in shared, and in {place}", "Remove one of them.")
    return merged


def _validated(kind: type[T], values: Any, path: Path, place: str) -> T:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        # a misspelt name also leaves the right one missing: report the misspelt one
        faults = sorted(error.errors(), key=lambda fault: fault["type"] not in UNKNOWN_KEY)
        raise _explained(faults[0], path, place) from error


def _explained(fault: ErrorDetails, path: Path, place: str) -> ParameterError:
    key = ".".join([place, *map(str, fault["loc"])] if place else map(str, fault["loc"]))
    if fault["type"] in UNKNOWN_KEY:
        now = next((now for before, now in RENAMED_KEYS.items() if re.fullmatch(before, key)), None)
        hint = f"It is called {now}, now." if now else "Remove it, or correct its name."
        return ParameterError(f"Unknown key {key} (value {fault['input']!r}) in {path}", hint)
    if fault["type"] in ("missing", "missing_argument"):
        return ParameterError(f"{key} is missing in {path}", "Add it to shared or to the presets.")
    hint = f"Allowed: {fault['msg'].removeprefix('Input should be ')}."
    value = fault["input"]
    new = RENAMED.get((re.sub(r"\.\d+$", "", key), str(value)))
    hint = f"It is called {new} now." if new else hint
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
        hint += f" YAML reads {value} as text: write a decimal point, such as {value.lower().replace('e', '.0e', 1)}."
    return ParameterError(f"{key}: {value!r} in {path}", hint)
