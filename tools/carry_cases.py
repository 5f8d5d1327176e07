"""Make miram/data/cbis_ddsm/cases.csv.gz from the four case lists of CBIS-DDSM, and print its SHA-256 for cases.py.

    python tools/carry_cases.py FOLDER_OF_THE_LISTS [TABLE]

The lists are those of TCIA's page of the collection; the table is described in miram/data/cbis_ddsm/README.md.
"""

import gzip
import hashlib
import sys
from pathlib import Path

from miram.data.case_lists import CASES, lesions_of, read_cases
from miram.data.cbis_ddsm.cases import TABLE


def carry_cases(csv_dir: Path, table: Path) -> str:
    """Write the rows of the lists in `csv_dir` as one compressed table, and return the SHA-256 of its content."""
    cases = read_cases(csv_dir)[CASES]
    lesions_of(cases)  # raises MiramError for what no lesion can have
    content = cases.to_csv(index=False, lineterminator="\n").encode()
    table.write_bytes(gzip.compress(content, mtime=0))
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    print(carry_cases(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else TABLE))
