from itertools import combinations
from pathlib import Path

from miram import kinds, layout, params
from miram.looks import STARTS, looks, looks_of_kinds

ROOT = Path(__file__).parent.parent
METHODS = params.kinds_of(params.load(ROOT / "params.yaml", "paper"))


def test_a_method_has_the_look_of_its_kind_whatever_else_is_drawn():
    every = looks(METHODS)
    for kind, method in {kind: method for method, kind in reversed(METHODS.items())}.items():  # the first of each kind
        assert looks({method: kind})[method] == every[method]
        assert looks_of_kinds([kind])[kind] == every[method]._replace(dashes=())  # there the line tells the form
    assert METHODS["miram-nystrom"] == "nystrom" and METHODS["from-scratch"] == layout.FROM_SCRATCH


def test_no_two_kinds_share_a_colour_or_a_marker():
    objectives = [name for name, entry in kinds.OBJECTIVES.items() if entry.drawing]
    found = looks_of_kinds([*STARTS, *kinds.ATTENTION, *objectives]).values()
    for one, other in combinations(found, 2):
        assert one.colour != other.colour and one.marker != other.marker and one.symbol != other.symbol


def test_further_methods_of_a_kind_and_of_kinds_that_are_gone_can_be_told_apart():
    found = looks({"a": "nystrom", "b": "nystrom", "c": "nystrom", "d": "gone", "e": "gone too"})
    assert len({(look.colour, look.marker) for look in found.values()}) == 5
    assert found["a"].colour == found["b"].colour and found["a"] == looks({"a": "nystrom"})["a"]
