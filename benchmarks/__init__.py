"""The authors' own measurements, each run once and kept in results/bench; users measure with `miram bench`."""

import argparse
from pathlib import Path

from miram.layout import BENCH


def parser_of(about: str | None, preset: str = "paper") -> argparse.ArgumentParser:
    """The command line of a measurement: the file whose `preset` gives the sizes, and the folder of results."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help=f"sizes: those of its preset {preset}")
    parser.add_argument("--out", type=Path, default=BENCH)
    return parser
