"""Like with like: in what else than the method two rows differ."""

from collections.abc import Mapping

NAMES = {"side": "side", "batch": "batch"}  # of the conditions that are told by their values
Conditions = Mapping[str, Mapping[str, int]]  # method -> side (px) and, of pre-training, batch and epochs


def differs_in(first: str, second: str, conditions: Conditions) -> str:
    """The conditions in which two methods differ, each with both values; empty where only the methods differ.

    Of two pre-trainings on the same images the optimiser steps go by epochs / batch.
    """
    one, other = (conditions.get(name, {}) for name in (first, second))
    common = one.keys() & other.keys()
    told = [
        f"{name} ({one[name]} against {other[name]})" for name in NAMES if name in common and one[name] != other[name]
    ]
    if {"batch", "epochs"} <= common:
        steps = one["epochs"] * other["batch"] / (one["batch"] * other["epochs"])
        told += [f"optimiser steps ({steps:.3g} to 1)"] if steps != 1 else []
    return ", ".join(told)


def with_conditions(row: dict[str, object], conditions: Conditions) -> dict[str, object]:
    """A row of differences.csv with what else its methods differ in."""
    return {**row, "differs_in": differs_in(str(row["first"]), str(row["second"]), conditions)}
