"""Run by the Python that has the RO-Crate validator: what it finds wrong with a crate, one line each.

usage: python validate_crate.py FOLDER SEVERITY CONTEXT. CONTEXT is a JSON-LD file in the place of RO-Crate's own,
which the validator would ask of the network; nothing else is asked of it.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from rocrate_validator import services
from rocrate_validator.models import Severity
from rocrate_validator.utils.http import HttpRequester

PROFILE = "provenance-run-crate"  # it builds on workflow-run-crate, which builds on process-run-crate
ADDRESS = "https://w3id.org/ro/crate/1.1/context"


def main(folder: str, severity: str, context: str) -> None:
    """Print the findings."""
    text = Path(context).read_text()

    def answer(requester: HttpRequester, address: str, **options: object) -> SimpleNamespace:
        code = 200 if address == ADDRESS else 404
        headers = {"Content-Type": "application/ld+json"}
        return SimpleNamespace(status_code=code, headers=headers, text=text, json=lambda: json.loads(text))

    HttpRequester.get = HttpRequester.head = answer
    settings = services.ValidationSettings(
        rocrate_uri=folder,
        profile_identifier=PROFILE,
        requirement_severity=Severity[severity],
        skip_availability_check=True,
        offline=True,
    )
    for issue in services.validate(settings).get_issues():
        print(issue.severity.name, issue.check.identifier, issue.violatingEntity, issue.message)


main(*sys.argv[1:])
