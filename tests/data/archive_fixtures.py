"""Fixtures that the tests of data and of planning share: a tiny archive, and who serves it."""

from collections.abc import Iterator

import idc_index_data
import pytest
from tiny_archive import FILM_SHAPE, Archive, Server, mask_of
from tiny_bucket import Bucket, write_index


@pytest.fixture
def archive() -> Archive:
    """Four plain lesions, one in each case list, on four films."""
    made = Archive()
    for number, (kind, part) in enumerate((k, p) for k in ("mass", "calc") for p in ("train", "test")):
        made.lesion(number, made.film(number), mask_of(FILM_SHAPE, (20, 30, 40, 60)), kind=kind, part=part)
    return made


@pytest.fixture
def server(archive: Archive) -> Iterator[Server]:
    running = Server(archive)
    yield running
    running.close()


@pytest.fixture
def bucket(archive: Archive, tmp_path, monkeypatch) -> Iterator[Bucket]:
    """The archive as the Imaging Data Commons has it, and the index that says so."""
    write_index(archive, tmp_path / "index.parquet")
    monkeypatch.setattr(idc_index_data, "IDC_INDEX_PARQUET_FILEPATH", tmp_path / "index.parquet")
    running = Bucket(archive)
    yield running
    running.close()
