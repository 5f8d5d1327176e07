import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from faults import reset, status
from pydicom.uid import RLELossless
from tiny_archive import dicom_bytes, mask_of
from tiny_bucket import Bucket, idc, send, write_index
from tiny_runs import cut_tiny, lesions, list_tiny, made, run_tiny, tcia

from miram.data.breast import MAP_ROWS
from miram.data.case_lists import UIDS, needed_series
from miram.data.cbis_ddsm.cases import carried_lesions
from miram.data.dicom import Film
from miram.data.transfer.catalogue import series_table
from miram.data.transfer.ledger import read_ledger
from miram.data.transfer.sources.idc import HEADER_BYTES, RemotePixels, read_index
from miram.errors import MiramError

UID, FILM = "1.2.4.2", "1.2.3.2"


@pytest.fixture
def second(archive) -> Iterator[Bucket]:
    """Another bucket of the same files."""
    running = Bucket(archive)
    yield running
    running.close()


def test_every_file_arrives_with_its_md5_and_what_is_made_is_what_tcia_gives(archive, bucket, server, tmp_path):
    facts = run_tiny(tmp_path, idc(bucket, tmp_path), keep_dicom=True)
    assert (facts["lesions"], facts["verified_series"], facts["verified_images"]) == (4, 8, 12)
    for uid, files in archive.series.items():
        assert {path.name: path.read_bytes() for path in (tmp_path / "dicom" / uid).glob("*.dcm")} == files
    run_tiny(tmp_path / "tcia", tcia(server))
    assert made(tmp_path) == made(tmp_path / "tcia")
    bucket.sent.clear()
    assert cut_tiny(tmp_path, idc(bucket, tmp_path), keep_dicom=True) == facts and not bucket.sent


def test_rows_alone_give_the_crops_of_whole_films(archive, bucket, tmp_path):
    film = np.random.default_rng(5).integers(0, 1 << 16, (1500, 900), np.uint16)
    name = archive.lesion(9, archive.film(9, film), mask_of(film.shape, (700, 300, 760, 380)))
    write_index(archive, tmp_path / "index.parquet")
    whole, rows = tmp_path / "whole", tmp_path / "rows"
    run_tiny(whole, idc(bucket, tmp_path))
    bucket.sent.clear()
    run_tiny(rows, idc(bucket, tmp_path, "rows"))
    cut = {path.name: path.read_bytes() for path in (whole / "crops").iterdir()}
    assert cut == {path.name: path.read_bytes() for path in (rows / "crops").iterdir()}
    told = [column for column in lesions(whole) if column != "film_sha256"]
    assert lesions(whole)[told].equals(lesions(rows)[told])
    assert set(lesions(rows)["film_sha256"]) == {""} and "" not in set(lesions(whole)["film_sha256"])
    backgrounds = pd.read_csv(rows / "backgrounds.csv", index_col="film_uid").loc["1.2.3.9", "side_px"]
    mapped = len(range(0, film.shape[0], film.shape[0] // MAP_ROWS))
    asked = lesions(rows).loc[name]["crop_rows"] + backgrounds + mapped
    assert bucket.sent["1.2.3.9"] == HEADER_BYTES + 2 * asked * film.shape[1]
    assert not read_ledger(rows / "ledger.jsonl").verified.keys() & {"1.2.3.9"}
    cut_tiny(rows, idc(bucket, tmp_path))
    assert made(rows) == made(whole)


def test_a_compressed_film_comes_whole(archive, bucket, tmp_path):
    header = pydicom.dcmread(io.BytesIO(archive.series[FILM]["1-1.dcm"]))
    header.compress(RLELossless)
    stream = io.BytesIO()
    header.save_as(stream, enforce_file_format=True)
    archive.series[FILM]["1-1.dcm"] = stream.getvalue()
    write_index(archive, tmp_path / "index.parquet")
    assert run_tiny(tmp_path, idc(bucket, tmp_path, "rows"))["lesions"] == 4


def without_pixels(files):
    header = pydicom.dcmread(io.BytesIO(files["1-1.dcm"]))
    del header.PixelData
    stream = io.BytesIO()
    header.save_as(stream, enforce_file_format=True)
    files["1-1.dcm"] = stream.getvalue()


def of_two_images(files):
    files["1-2.dcm"] = files["1-1.dcm"]


@pytest.mark.parametrize(
    ("damage", "reason"), [(without_pixels, "holds no pixel data"), (of_two_images, "holds 2 images, not one film")]
)
def test_an_unusable_film_sets_the_same_lesions_aside_by_rows_as_whole(archive, bucket, tmp_path, damage, reason):
    damage(archive.series[FILM])
    write_index(archive, tmp_path / "index.parquet")
    aside = {}
    for films in ("whole", "rows"):
        facts = run_tiny(tmp_path / films, idc(bucket, tmp_path, films))
        assert (facts["lesions"], facts["set_aside"]) == (3, 1)
        aside[films] = (tmp_path / films / "set_aside.csv").read_text().replace(str(tmp_path / films), "")
    assert aside["rows"] == aside["whole"] and reason in aside["rows"]


def wrong_bytes(handler, files):
    send(handler, bytes(len(files["1-1.dcm"])))


def another_series(handler, files):
    send(handler, dicom_bytes(mask_of((9, 9), (1, 1, 2, 2)), "9.9.9"))


def short_list(handler, files):
    send(handler, b"<ListBucketResult></ListBucketResult>")


def of_another_size(handler, files):
    """As many files as the index says, each consistent with itself."""
    entries = "".join(f"<Contents><Key>{name}</Key><ETag>x</ETag><Size>9</Size></Contents>" for name in files)
    send(handler, f"<ListBucketResult>{entries}</ListBucketResult>".encode())


def outside(handler, files):
    entry = "<Contents><Key>../../1-1.dcm</Key><ETag>x</ETag><Size>1</Size></Contents>"
    send(handler, f"<ListBucketResult>{entry}</ListBucketResult>".encode())


def html(handler, files):
    send(handler, b"<html><br></html>")


def page(handler, files):
    """Such as is well-formed XML."""
    send(handler, b"<html><body>Moved</body></html>")


def whole_instead(handler, files):
    send(handler, files["1-1.dcm"])


@pytest.mark.parametrize(
    ("kind", "fault", "named"),
    [
        ("list", status(500), "HTTP status 500"),
        ("list", short_list, "holds 0 images of 0 bytes, the index announces 2"),
        ("list", of_another_size, "holds 2 images of 18 bytes, the index announces 2"),
        ("list", outside, "not a plain DICOM file"),
        ("list", html, "no list of files but '<html>"),
        ("list", page, r"no list of files but '<html>.*its root is html"),
        ("file", reset, "reset|Connection"),
        ("file", wrong_bytes, r"with MD5 \w+, not \d+ with \w+"),
        ("file", another_series, "has .* bytes with MD5"),
    ],
)
def test_faults_are_mended_by_other_tries_and_lasting_ones_are_named(bucket, tmp_path, kind, fault, named):
    where = idc(bucket, tmp_path)
    list_tiny(tmp_path, where)
    bucket.faults[kind, UID] = [fault] * 3
    with pytest.raises(MiramError, match=rf"1 series could not be downloaded: {UID} \(.*({named})"):
        cut_tiny(tmp_path, where)
    bucket.faults[kind, UID] = [fault] * 2
    assert cut_tiny(tmp_path, where)["lesions"] == 4


def test_a_server_without_ranges_is_named(bucket, tmp_path):
    where = idc(bucket, tmp_path, "rows")
    list_tiny(tmp_path, where)
    bucket.faults["file", FILM] = [whole_instead]
    with pytest.raises(MiramError, match="whole files only, no ranges"):
        cut_tiny(tmp_path, where)


def test_an_etag_of_parts_is_no_md5_and_the_size_then_counts(bucket, tmp_path):
    bucket.multipart = {UID}
    bucket.faults["file", UID] = [lambda handler, files: send(handler, files["1-1.dcm"][:-1])]
    where = idc(bucket, tmp_path)
    assert run_tiny(tmp_path, where)["lesions"] == 4
    assert not bucket.faults["file", UID]
    list_tiny(tmp_path / "short", where)
    bucket.faults["file", UID] = [lambda handler, files: send(handler, files["1-1.dcm"][:-1])] * 3
    with pytest.raises(MiramError, match=r"1-1\.dcm has \d+ bytes with MD5 \w+, not \d+ with any"):
        cut_tiny(tmp_path / "short", where)


def part_of(body: bytes, less: int = 0):
    """Answer a request for bytes with those of `body`, the last `less` of them missing."""

    def answer(handler, files):
        start, end = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
        send(handler, body[start : end + 1 - less], 206, Content_Range=f"bytes {start}-{end}/{len(body)}")

    return answer


def test_rows_of_another_film_and_too_few_bytes_of_one_are_named(archive, bucket, tmp_path):
    where, film = idc(bucket, tmp_path, "rows"), archive.series[FILM]["1-1.dcm"]
    list_tiny(tmp_path, where)
    faults = {
        "belongs to series 1.2.3.9": part_of(film.replace(b"1.2.3.2", b"1.2.3.9")),
        "bytes came": part_of(film, 1),
    }
    for named, fault in faults.items():
        bucket.faults["file", FILM] = [fault] * 3
        with pytest.raises(MiramError, match=named):
            cut_tiny(tmp_path, where)


def test_a_film_whose_rows_stop_coming_fails_alone(archive, bucket, tmp_path):
    where = idc(bucket, tmp_path, "rows")
    list_tiny(tmp_path, where)
    header = part_of(archive.series[FILM]["1-1.dcm"])
    bucket.faults["file", FILM] = [header, *[status(500)] * 1000]
    with pytest.raises(MiramError, match=rf"1 series could not be downloaded: {FILM} \(HTTP status 500"):
        cut_tiny(tmp_path, where)
    assert len(list((tmp_path / "crops").iterdir())) == 3


def test_an_unknown_collection_is_named(bucket, tmp_path):
    where = idc(bucket, tmp_path)
    where["settings"]["collection"] = "none"
    with pytest.raises(MiramError, match="has no collection 'none'"):
        list_tiny(tmp_path, where)


def test_a_window_of_remote_pixels_asks_for_its_rows():
    film = np.arange(60, dtype="<u2").reshape(10, 6)
    body, asked = b"head" + film.tobytes(), []

    def read(start: int, end: int) -> bytes:
        asked.append((start, end))
        return body[start:end]

    pixels = RemotePixels(Film(Path("x"), "1.2", 10, 6, 16, 4), 4, read, ThreadPoolExecutor(2))
    assert (pixels.shape, pixels.dtype) == (film.shape, film.dtype)
    assert np.array_equal(pixels[3:7, 2:5], film[3:7, 2:5])
    assert asked == [(4 + 3 * 12, 4 + 7 * 12)]
    assert np.array_equal(pixels[::4, ::2], film[::4, ::2])
    assert sorted(asked[1:]) == [(4 + row * 12, 4 + (row + 1) * 12) for row in (0, 4, 8)]


@pytest.mark.parametrize("films", ["rows", "whole"])
@pytest.mark.parametrize("answer", [status(503), html, None])
def test_the_second_bucket_gives_what_the_first_does_not(archive, bucket, second, tmp_path, capsys, films, answer):
    wanted = run_tiny(tmp_path / "wanted", idc(second, tmp_path, films))
    where = idc(bucket, tmp_path, films)
    where["settings"]["bucket_urls"].append(f"{second.url}/")
    bucket.out = answer
    if answer is None:
        bucket.close()
    assert run_tiny(tmp_path / "run", where) == wanted
    assert made(tmp_path / "run") == made(tmp_path / "wanted")
    told = capsys.readouterr().err
    assert re.search(rf"{bucket.url} does not answer correctly \(.+\); {second.url} does", told)
    assert bucket.asked <= 2 * 3  # of each worker's first film, and no more


def test_one_file_that_the_first_bucket_lacks_comes_from_the_second(bucket, second, tmp_path):
    where = idc(bucket, tmp_path)
    where["settings"]["bucket_urls"].append(second.url)
    bucket.faults["file", UID] = [status(404)]
    assert run_tiny(tmp_path, where)["lesions"] == 4
    assert not bucket.faults["file", UID] and second.sent[UID]


def test_when_no_bucket_answers_each_is_named_with_its_reason(bucket, second, tmp_path):
    where = idc(bucket, tmp_path)
    where["settings"]["bucket_urls"].append(second.url)
    list_tiny(tmp_path, where)
    bucket.out, second.out = status(503), status(403)
    with pytest.raises(MiramError, match=rf"{bucket.url}: HTTP status 503.*; {second.url}: HTTP status 403"):
        cut_tiny(tmp_path, where)


@pytest.fixture(scope="module")
def real():
    """The real case lists, and the series that they need as the real index has them."""
    lesions = carried_lesions()
    entries = read_index("cbis_ddsm")
    return lesions, series_table(
        lesions, {uid: entries[uid].series for uid in needed_series(lesions) if uid in entries}, UIDS
    )


def test_the_real_index_has_every_series_of_the_real_case_lists_with_its_bytes(real):
    lesions, table = real
    there = set(table.loc[table["images"] > 0, "series_uid"])
    resolved = lesions[["film_uid", "mask_uid", "crop_uid"]].isin(there).all(axis=1).sum()
    films = table[table["series_uid"].isin(lesions["film_uid"])]
    print(
        f"{resolved} of {len(lesions)} lesions resolve, {len(films)} films, {len(table)} series, "
        f"{table['images'].sum()} images, {table['bytes'].sum()} bytes, {films['bytes'].sum()} of them films"
    )
    assert (resolved, len(films), len(table), table["images"].sum()) == (3568, 3103, 6775, 10239)
    assert round(table["bytes"].sum() / 1e8) == 1635


def test_the_sizes_in_the_real_index_tell_the_78_masks_that_are_smaller_than_their_films(real, shared):
    """A mask of a film's size, 8 bits a pixel, is half as long as the film, and no series with one is shorter.

    What the index cannot tell: a series that holds a mask and a crop may hide a small mask behind a large crop.
    """
    lesions, table = real
    size, images = (table.set_index("series_uid")[name] for name in ("bytes", "images"))
    film, mask = lesions["film_uid"].map(size), lesions[["mask_uid", "crop_uid"]].apply(lambda uid: uid.map(size))
    alone = lesions["mask_uid"].map(images) == 1
    swapped = alone & (mask["mask_uid"] < mask["crop_uid"])  # the mask lies in the series that is named for the crop
    own = mask["mask_uid"].where(~(swapped & (mask["crop_uid"] > 0.49 * film)), mask["crop_uid"])
    small = lesions[own < 0.499 * film]
    known = pd.read_csv(shared / "data" / "mask_087_cases.csv")
    pairs = {(row["image file path|series"], row["ROI mask file path|series"]) for _, row in known.iterrows()}
    ratio = np.sqrt(2 * own / film)[small.index]
    exact = alone[small.index]
    print(
        f"{len(small)} masks are smaller than their films; {exact.sum()} of them alone in their series, with sides "
        f"{ratio[exact].min():.4f} to {ratio[exact].max():.4f} of the film's; {(~exact).sum()} beside a crop. "
        f"Of the other {(~alone).sum() - (~exact).sum()} masks beside crops the sizes tell nothing."
    )
    assert set(zip(small["film_uid"], small["mask_uid"], strict=True)) == pairs and len(small) == 78
    assert ratio[exact].between(0.8695, 0.8705).all() and exact.sum() == 74
