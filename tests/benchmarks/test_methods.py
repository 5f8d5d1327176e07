"""The verdicts on the plan's targets."""

import copy

from benchmarks.methods import TARGETS, judged

LAYERS = {"full": (1.0, 16.0, 30.0, 120.0), "linformer": (0.1, 0.4, 13.0, 52.0)}
LAYERS |= dict.fromkeys(("performer", "nystrom"), (0.2, 0.8, 25.0, 100.0))
REFERENCES = {"mocov3": "straightforward"} | dict.fromkeys(
    ("miram-linformer", "miram-performer", "miram-nystrom"), "package"
)
RESULTS = {
    "steps": [
        {"method": method, "reference": reference, "time_ratio": 0.7, "kept_ratio": 0.4}
        for method, reference in REFERENCES.items()
    ],
    "layers": [
        {"kind": kind, "tokens": tokens, "seconds": seconds, "kept_mib": kept}
        for kind, (first, second, less, more) in LAYERS.items()
        for tokens, seconds, kept in ((3137, first, less), (12_545, second, more))
    ],
    "pipeline": [{"side": 112, "times_faster": 8.0}, {"side": 224, "times_faster": 6.0}],
}


def test_every_target_is_judged_and_what_misses_one_is_told():
    assert [row["quantity"] for row in judged(RESULTS) if row["holds"]] == list(TARGETS)
    worse = copy.deepcopy(RESULTS)
    worse["steps"][0]["time_ratio"] = 0.9
    worse["layers"][-1]["seconds"] = 2.0
    worse["pipeline"][0]["times_faster"] = 5.0
    assert [row["quantity"] for row in judged(worse) if not row["holds"]] == [
        "step, time: mocov3 / straightforward",
        "layer of 12545 tokens, time: full / nystrom",
        "3137 -> 12545 tokens, time: nystrom",
        "input at side 112: store / PNG",
    ]
