"""The embedded archive through download, crops and splits: its planted defects meet their rules."""

import pandas as pd
import pytest
from PIL import Image

from miram.data.crops import cut_crops
from miram.data.download import download
from miram.data.phantom.archive import write_archive
from miram.data.phantom.server import running
from miram.data.splits import write_splits
from miram.data.tasks import CLASSES, labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write_archive(folder / "archive", patients=60, films_rows=320, films_columns=224, seed=7)
    with running(folder / "archive") as (api_url, csv_url):
        facts = download(
            folder / "csv",
            folder / "dicom",
            api_url=api_url,
            csv_url=csv_url,
            collection="CBIS-DDSM",
            workers=2,
            attempts=2,
            timeout_seconds=20.0,
            backoff_seconds=0.1,
        )
    assert facts["series"] == len(list((folder / "archive" / "series").iterdir()))
    return folder


@pytest.fixture(scope="module")
def crops(folder):
    tables = [folder / f"{name}.csv" for name in ("lesions", "set_aside", "backgrounds")]
    values = {"component": "union", "shape": "square", "margin": 0.0, "side_min": 1, "bits": 8, "air": 0.08}
    values |= {"backgrounds_per_film": 1, "backgrounds_seed": 0}
    folders = (folder / name for name in ("csv", "dicom", "crops", "backgrounds"))
    facts = cut_crops(*folders, *tables, **values)
    return facts, *(pd.read_csv(table, keep_default_na=False) for table in tables[:2])


def test_every_file_arrives_as_it_lies_in_the_archive(folder):
    for path in (folder / "archive" / "series").rglob("*.dcm"):
        assert (folder / "dicom" / path.parent.name / path.name).read_bytes() == path.read_bytes()


def test_planted_defects_are_repaired_or_set_aside_and_nothing_vanishes(folder, crops):
    facts, lesions, aside = crops
    rows = sum(len(pd.read_csv(path)) for path in (folder / "csv").glob("*set.csv"))
    assert facts["lesions"] + facts["set_aside"] == len(lesions) + len(aside) == rows
    assert facts["repairs"]["mask_resized"] == 4
    assert facts["repairs"]["series_swapped"] == 1
    assert facts["repairs"]["components_union"] == 2
    assert sorted(aside["reason"].str.extract("(empty mask|no mask of the shape)")[0]) == [
        "empty mask",
        "no mask of the shape",
    ]


def test_every_crop_is_the_square_of_its_row(folder, crops):
    _, lesions, _ = crops
    sizes = {path.stem: Image.open(path).size for path in (folder / "crops").iterdir()}
    assert sizes == {row.lesion_id: (row.crop_columns, row.crop_rows) for row in lesions.itertuples()}


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_all_classes_occur_in_each_split(folder, crops, protocol):
    _, lesions, _ = crops
    facts = write_splits(
        folder / "lesions.csv", folder / "splits.csv", protocol=protocol, validation_fraction=0.3, seed=42
    )
    for split in ("train", "validation", "test"):
        assert set(facts[split]) == set(CLASSES["pathology_4class"])
    assert bool(facts["excluded"]) == (protocol == "strict")
    assert sum(sum(counts.values()) for counts in facts.values()) == len(labels(lesions, "pathology"))
