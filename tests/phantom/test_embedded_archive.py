"""The embedded archive through download, crops and splits: its planted defects meet their rules."""

import pandas as pd
import pytest
from PIL import Image
from tiny_runs import run_tiny

from miram.data.splits import write_splits
from miram.data.tasks import CLASSES, labels
from miram.phantom.archive import write_archive
from miram.phantom.server import running


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write_archive(folder / "archive", patients=60, films_rows=320, films_columns=224, seed=7)
    return folder


@pytest.fixture(scope="module")
def crops(folder):
    with running(folder / "archive") as (api_url, csv_url):
        settings = {"collection": "CBIS-DDSM", "api_url": api_url, "csv_url": csv_url}
        facts = run_tiny(folder, {"source": "tcia", "settings": settings}, keep_dicom=True)
    tables = [folder / f"{name}.csv" for name in ("lesions", "set_aside")]
    return facts, *(pd.read_csv(table, keep_default_na=False) for table in tables)


def test_every_file_arrives_as_it_lies_in_the_archive(folder, crops):
    assert crops[0]["verified_series"] == len(list((folder / "archive" / "series").iterdir()))
    for path in (folder / "archive" / "series").rglob("*.dcm"):
        assert (folder / "dicom" / path.parent.name / path.name).read_bytes() == path.read_bytes()


def test_planted_defects_are_repaired_or_set_aside_and_nothing_vanishes(folder, crops):
    facts, lesions, aside = crops
    rows = sum(len(pd.read_csv(path)) for path in (folder / "csv").glob("*set.csv"))
    assert facts["lesions"] + facts["set_aside"] == len(lesions) + len(aside) == rows
    assert facts["repairs"]["mask_resized"] == 4
    assert facts["repairs"]["series_swapped"] == 1
    assert facts["repairs"]["components_union"] == 2
    assert sorted(aside["reason"].str.extract("(empty mask|no mask with the shape)")[0]) == [
        "empty mask",
        "no mask with the shape",
    ]


def test_every_crop_is_the_square_of_its_row(folder, crops):
    _, lesions, _ = crops
    sizes = {path.stem: Image.open(path).size for path in (folder / "crops").iterdir()}
    assert sizes == {row.lesion_id: (row.crop_columns, row.crop_rows) for row in lesions.itertuples()}


@pytest.mark.parametrize("protocol", ["strict", "published"])
def test_all_classes_occur_in_each_split(folder, crops, protocol):
    _, lesions, _ = crops
    facts = write_splits(
        folder / "lesions.csv",
        folder / "splits.csv",
        protocol=protocol,
        validation_fraction=0.3,
        test_fraction=0.2,
        candidates=200,
        seed=42,
    )
    for split in ("train", "validation", "test"):
        assert set(facts[split]) == set(CLASSES["pathology_4class"])
    assert bool(facts["excluded"]) == (protocol == "strict")
    assert sum(sum(counts.values()) for counts in facts.values()) == len(labels(lesions, "pathology"))
