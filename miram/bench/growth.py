"""How the cost of attention grows with the number of tokens, and from where a linear kind is cheaper."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from miram.kinds import FULL, OURS

LINEAR_FROM = 3137  # tokens from which growth is fitted: below, constant parts matter


def exponents(attention: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """P of cost ~ N^p, least squares on logarithms, from LINEAR_FROM tokens on."""
    rows, table = [], pd.DataFrame(attention)
    for (kind, form), own in table[table["tokens"] >= LINEAR_FROM].groupby(["kind", "form"], sort=False):
        if len(own) > 1:
            fits = {
                part: np.polyfit(np.log(own["tokens"]), np.log(own[part]), 1)[0] for part in ("seconds", "kept_mib")
            }
            reach = {"from_tokens": int(own["tokens"].min()), "to_tokens": int(own["tokens"].max())}
            rows.append({"kind": kind, "form": form, **reach, "time": fits["seconds"], "kept": fits["kept_mib"]})
    return rows


def crossovers(attention: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tokens from which on a linear kind costs less than fused full attention, in time and in kept memory.

    Interpolated between two measured numbers of tokens, linearly in the logarithms of ratio and tokens. A bound if the
    kind costs less from the first number on, or never. Nothing if full attention was not measured.
    """
    table = pd.DataFrame(attention)
    full = table[(table["kind"] == FULL) & (table["form"] == OURS)].set_index("tokens")
    if full.empty:
        return []
    rows = []
    for (kind, form), own in table[table["kind"] != FULL].groupby(["kind", "form"], sort=False):
        own = own.set_index("tokens")
        ratios = {part: own[part] / full[part] for part in ("seconds", "kept_mib")}
        rows.append(
            {
                "kind": kind,
                "form": form,
                **{
                    part: crossing(dict(zip(ratio.index.tolist(), ratio, strict=True)))
                    for part, ratio in ratios.items()
                },
            }
        )
    return rows


def crossing(ratios: Mapping[int, float]) -> str:
    """Where a ratio, by tokens, falls below 1 for good: "430", "below 197", or "above 16385"."""
    tokens = sorted(ratios)
    above = [count for count in tokens if ratios[count] > 1]
    if not above:
        return f"below {tokens[0]}"
    if above[-1] == tokens[-1]:
        return f"above {tokens[-1]}"
    left, right = next(pair for pair in pairwise(tokens) if pair[0] == above[-1])
    low, high = np.log(ratios[left]), np.log(ratios[right])
    return f"{round(np.exp(np.log(left) + (np.log(right) - np.log(left)) * low / (low - high)))}"
