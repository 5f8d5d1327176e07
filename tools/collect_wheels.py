"""Collect the wheels that `miram bench --minutes` needs on a machine that has Python and torch alone.

    .venv/bin/python tools/collect_wheels.py FOLDER [PYTHON]

PYTHON is that of the machine, 3.12 by default; the versions are those of requirements.lock. There, without a network,
`pip install --no-index --no-deps FOLDER/*.whl`, or `pip install --target` into a folder that PYTHONPATH names.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile

from packaging.requirements import Requirement

LOCK = Path(__file__).parents[1] / "requirements.lock"
# what the bench imports, without torch and what torch brings (filelock, fsspec, jinja2, mpmath, networkx, sympy, ...)
NEEDED = """
numpy pandas python-dateutil tabulate pillow psutil pyyaml rich markdown-it-py mdurl pygments
pydantic pydantic-core annotated-types typing-inspection lightning-fabric lightning-utilities packaging
timm torchvision safetensors huggingface-hub tqdm httpx2 httpcore2 h11 anyio truststore idna
"""
LARGEST = 60e6  # bytes


def locked(names: set[str], python: str) -> Iterator[str]:
    """The lines of the lock for these packages under that Python on Linux, with their hashes and without markers."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    for entry in re.findall(r"^[a-z].*(?:\n .*)*", LOCK.read_text(encoding="utf-8"), re.MULTILINE):
        text, *hashes = re.split(r"\s*\\\n\s*", entry)
        wanted = Requirement(text)
        if wanted.name in names and (wanted.marker is None or wanted.marker.evaluate(environment)):
            yield " ".join([f"{wanted.name}{wanted.specifier}", *hashes])


def collect(folder: Path, python: str) -> float:
    """Download the wheels into `folder`; returns their bytes. Raises if a wheel is missing."""
    lines = list(locked(set(NEEDED.split()), python))
    with NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(lines))
        file.flush()
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--python-version", python, "--dest", str(folder)]
        for version in (17, 24, 26, 27, 28):  # of glibc, up to that of RHEL 8
            options += ["--platform", f"manylinux_2_{version}_x86_64"]
        options += ["--platform", "manylinux2014_x86_64"]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, "-r", file.name], check=True)
    return sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))


if __name__ == "__main__":
    size = collect(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "3.12")
    print(f"{size / 1e6:.0f} MB")
    sys.exit(f"More than {LARGEST / 1e6:.0f} MB." if size > LARGEST else None)
