"""The commands that check results: whether they are those of the parameters, and whether two runs agree."""

import argparse
import sys

from miram import layout, params
from miram.cli.stage import expected
from miram.errors import MiramError

SHOWN = 5  # reasons why a table is outdated


def show(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Print the table, if it belongs to the present parameters."""
    from miram.provenance.verify import shortfalls

    found, table = shortfalls(expected(chosen)), layout.results(chosen.name) / "comparison.md"
    if found:
        more = [f"and {len(found) - SHOWN} more: miram verify"] * (len(found) > SHOWN)
        print(*found[:SHOWN], *more, sep="\n", file=sys.stderr)
        raise MiramError(
            f"{table} is not shown: it does not belong to the present parameters, for the reasons above.",
            f"Run the workflow, which does only what is missing: snakemake --cores all --config preset={chosen.preset};"
            " if it finds nothing to do, files were replaced, by git perhaps: delete the records named above first.",
        )
    sys.stdout.buffer.write(table.read_bytes())  # UTF-8, whatever the terminal's encoding


def verify(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Check a results folder."""
    from miram.provenance.verify import verify as check

    folder = arguments.folder or layout.results(chosen.name)
    named = folder.resolve().name
    if arguments.preset is None and named in params.PRESETS and named != chosen.preset:
        chosen = params.load(arguments.params, named)
        print(f"note      By the name of the folder, the parameters are those of preset {named}.")
    check(folder, expected(chosen), name=chosen.name, films=arguments.films)


def compare(chosen: params.Params, arguments: argparse.Namespace) -> int:
    """Compare two results folders, by default the first with its state in git at HEAD; 1 if they do not agree."""
    from miram.provenance.compare import committed
    from miram.provenance.compare import compare as weigh

    first = arguments.first or layout.results(chosen.name)
    try:
        if arguments.second:
            found = weigh(first, arguments.second, (str(first), str(arguments.second)))
        else:
            with committed(first) as (folder, commit):
                other = "the published results" if arguments.brief else f"{first} of HEAD ({commit})"
                found = weigh(first, folder, (str(first), other))
    except MiramError as fault:
        if not arguments.brief:
            raise
        print(f"{first} is not compared with the published results: {fault.message}")
        return MiramError.exit_code
    print(found.verdict if arguments.brief else found.page)
    return 0 if found.agrees else MiramError.exit_code
