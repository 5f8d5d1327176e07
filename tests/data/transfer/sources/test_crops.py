"""The archive's own crops from each kind of source, as DICOM: which files are fetched, and what is noticed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_archive import dicom_bytes
from tiny_bucket import idc, write_index
from tiny_runs import cut_tiny, lesions, list_tiny, made, places_in, tcia

from miram.data.crop_rules import Taking
from miram.data.transfer.catalogue import list_carried
from miram.data.transfer.films import plan_films, read_series
from miram.errors import MiramError

UID = "1.2.4.2"


def of_crops(where: dict) -> dict[str, object]:
    return {**where, "settings": {**where["settings"], "crops_from": "archive"}}


def taken(folder: Path, where: dict, **changes) -> dict[str, object]:
    list_tiny(folder, of_crops(where))
    return cut_tiny(folder, of_crops(where), rule=Taking(bits=16, doubtful="keep"), **changes)


@pytest.fixture
def index(archive, bucket, tmp_path):
    """Writes the index of the bucket anew, after a change of the archive."""
    return lambda: write_index(archive, tmp_path / "index.parquet")


def crop_bytes(archive) -> dict[str, int]:
    return {uid: len(files["1-1.dcm"]) for uid, files in archive.series.items() if uid.startswith("1.2.4")}


def test_of_the_commons_crops_alone_are_fetched_and_neither_masks_nor_films(archive, bucket, tmp_path):
    facts = taken(tmp_path / "run", idc(bucket, tmp_path, "rows"))
    assert dict(bucket.sent) == crop_bytes(archive)
    assert (facts["lesions"], facts["verified_images"], facts["verified_bytes"]) == (4, 4, sum(bucket.sent.values()))
    table = lesions(tmp_path / "run")
    for name in table.index:
        number = int(table.loc[name, "roi_uid"].rpartition(".")[2])
        assert (np.asarray(Image.open(tmp_path / "run" / "crops" / f"{name}.png")) == number).all()


def test_every_source_gives_the_same_crops(archive, bucket, server, tmp_path):
    taken(tmp_path / "idc", idc(bucket, tmp_path))
    taken(tmp_path / "tcia", tcia(server), keep_dicom=True)
    assert not [
        uid for uid in archive.series if uid.startswith("1.2.3") and (tmp_path / "tcia" / "dicom" / uid).exists()
    ]
    where = {
        "source": "local",
        "settings": {"folder": str(tmp_path / "tcia" / "dicom"), "csv_url": str(tmp_path / "lists")},
    }
    taken(tmp_path / "local", where)
    crops = [
        {name: body for name, body in made(tmp_path / kind).items() if name.endswith(".png")}
        for kind in ("idc", "tcia", "local")
    ]
    assert crops[0] == crops[1] == crops[2] and len(crops[0]) == 4
    assert made(tmp_path / "idc")["lesions.csv"] == made(tmp_path / "tcia")["lesions.csv"]


def apart(archive, crop_in: str, mask_in: str) -> None:
    """Lesion 2 with its crop and its mask in series of their own; its row names 1.2.4.2 for the crop."""
    files = archive.series.pop(UID)
    shape = (120, 100)
    archive.series[crop_in] = {"1-1.dcm": dicom_bytes(np.full((9, 9), 2, np.uint16), crop_in)}
    archive.series[mask_in] = {"1-1.dcm": dicom_bytes(np.ones(shape, np.uint8), mask_in)}
    assert files
    for rows in archive.rows.values():
        for row in rows:
            if UID in row["cropped image file path"]:
                row["ROI mask file path"] = "folder/9.9/1.2.4.20/000001.dcm"


@pytest.mark.parametrize(("crop_in", "mask_in", "word"), [(UID, "1.2.4.20", ""), ("1.2.4.20", UID, "series_swapped")])
@pytest.mark.parametrize("kind", ["idc", "tcia"])
def test_a_crop_is_found_in_either_of_two_series_and_the_mask_stays_where_it_is(
    archive, bucket, server, index, tmp_path, crop_in, mask_in, word, kind
):
    apart(archive, crop_in, mask_in)
    index()
    facts = taken(tmp_path / "run", idc(bucket, tmp_path) if kind == "idc" else tcia(server), keep_dicom=True)
    (row,) = [row for _, row in lesions(tmp_path / "run").iterrows() if row["roi_uid"] == crop_in]
    assert facts["lesions"] == 4 and row["repairs"] == word
    assert not (tmp_path / "run" / "dicom" / mask_in).exists() and not bucket.sent[mask_in]


def test_a_swapped_instance_is_noticed(archive, bucket, index, tmp_path):
    one, other = archive.series[UID], archive.series["1.2.4.1"]
    one["1-1.dcm"], other["1-1.dcm"] = other["1-1.dcm"], one["1-1.dcm"]
    index()
    with pytest.raises(MiramError, match=r"belongs to series 1\.2\.4"):
        taken(tmp_path / "run", idc(bucket, tmp_path))


def test_a_smaller_file_that_is_no_crop_sets_its_lesion_aside(archive, bucket, index, tmp_path):
    archive.series[UID]["1-1.dcm"] = dicom_bytes(np.ones((9, 9), np.uint8), UID)
    index()
    facts = taken(tmp_path / "run", idc(bucket, tmp_path))
    assert (facts["lesions"], facts["set_aside"]) == (3, 1)
    assert "has 8 bits, as a mask" in (tmp_path / "run" / "set_aside.csv").read_text()


def test_a_damaged_crop_is_noticed(archive, bucket, tmp_path):
    where = of_crops(idc(bucket, tmp_path))
    list_tiny(tmp_path / "run", where)
    body = archive.series[UID]["1-1.dcm"]
    bucket.faults["file", UID] = [lambda handler, _: send_other(handler, body)] * 3
    with pytest.raises(MiramError, match="MD5"):
        cut_tiny(tmp_path / "run", where, rule=Taking(bits=16, doubtful="keep"))


def send_other(handler, body: bytes) -> None:
    changed = body[:-1] + bytes([body[-1] ^ 1])
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(changed)))
    handler.end_headers()
    handler.wfile.write(changed)


def test_the_plan_of_the_real_archive_is_about_2_gb(tmp_path, capsys):
    where = of_crops({"source": "idc", "settings": {"films": "rows"}})
    places = places_in(tmp_path)
    list_carried(places.csv_dir, places.series_csv, **where)
    assert len(read_series(places.series_csv)) == 3672
    plan_films(places, **where, cutting=Taking(bits=8, doubtful="keep"), workers=2, keep_dicom=False)
    said = capsys.readouterr().out
    assert "still to come: 3568 series of 3103 films" in said and "(1.90 GB)" in said
