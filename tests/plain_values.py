"""The dataclasses of `miram.recipe` from plain values, such as a record's."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter

Kind = TypeVar("Kind")


def of_values(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """One of that kind; unknown names are left out."""
    return TypeAdapter(kind).validate_json(json.dumps(values))
