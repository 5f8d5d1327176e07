import shutil

import pytest
from tiny_archive import FILM_SHAPE, mask_of
from tiny_runs import CROPS, cut_tiny, list_tiny, places_in, run_tiny, tcia

from miram.data.crop_rules import Cutting
from miram.data.transfer.films import films_of, plan_films, read_series
from miram.data.transfer.ledger import History
from miram.data.transfer.plan import RESERVE_BYTES, describe, make_plan, peak_bytes, require_space
from miram.errors import MiramError

TWO = "1.2.3.0"  # a film with two lesions, where the others have one


@pytest.fixture
def listed(archive, server, tmp_path):
    """The films, the series and their sizes, of five lesions on four films."""
    archive.lesion(9, TWO, mask_of(FILM_SHAPE, (5, 5, 9, 9)))
    list_tiny(tmp_path, tcia(server))
    size = {uid: sum(map(len, files.values())) for uid, files in archive.series.items()}
    return films_of(tmp_path / "csv"), read_series(tmp_path / "series.csv"), size


def plan(listed, folder, *, source="tcia", films="whole", workers=2, keep_dicom=False):
    lesions, series, _ = listed
    return make_plan(lesions, series, source, {"films": films}, folder, workers=workers, keep_dicom=keep_dicom)


def with_zip(sizes: list[int]) -> int:
    return sum(sizes) + max(sizes)


def test_the_numbers_of_a_known_archive(listed, tmp_path):
    size, found = listed[2], plan(listed, tmp_path)
    assert (found.films, found.series, found.transfer_bytes) == (4, 9, sum(size.values()))
    widest = with_zip([size[TWO], size["1.2.4.0"], size["1.2.4.9"]]) + with_zip([size["1.2.3.1"], size["1.2.4.1"]])
    assert found.dicom_bytes == widest
    assert plan(listed, tmp_path, workers=9).dicom_bytes == widest + 2 * with_zip([size["1.2.3.1"], size["1.2.4.1"]])
    others = [uid for uid in size if uid.startswith("1.2.4.")]
    masks = size[TWO] + 3 * (size["1.2.3.1"] // 2)  # of the film with two lesions twice the half
    assert found.crop_bytes == sum(size[uid] for uid in others) - masks
    assert peak_bytes(found) == found.dicom_bytes + found.crop_bytes + RESERVE_BYTES


def test_kept_dicoms_stay_on_the_disk_all(listed, tmp_path):
    found = plan(listed, tmp_path, keep_dicom=True)
    assert found.dicom_bytes == found.transfer_bytes + plan(listed, tmp_path).dicom_bytes // 2


def test_films_by_rows_neither_come_nor_lie_there(listed, tmp_path):
    size, found = listed[2], plan(listed, tmp_path, films="rows")
    masks = [size["1.2.4.0"], size["1.2.4.9"]]
    assert found.transfer_bytes == sum(size[uid] for uid in size if uid.startswith("1.2.4."))
    assert found.dicom_bytes == with_zip(masks) + with_zip([size["1.2.4.1"]])
    told = describe(found, listed[1], 5, 4, History(), tmp_path)
    assert "GB); the rows that are read of 4 films come on top" in told
    assert "rows" not in describe(plan(listed, tmp_path), listed[1], 5, 4, History(), tmp_path)


@pytest.mark.parametrize("keep_dicom", [False, True])
def test_a_local_folder_takes_no_room_and_no_time_on_a_network(listed, tmp_path, keep_dicom):
    found = plan(listed, tmp_path, source="local", keep_dicom=keep_dicom)
    assert (found.series, found.transfer_bytes, found.dicom_bytes) == (9, 0, 0)
    assert "time:" not in describe(found, listed[1], 5, 4, History(), tmp_path)


def test_what_lies_there_is_neither_transferred_nor_counted(archive, server, tmp_path):
    run_tiny(tmp_path, tcia(server), keep_dicom=True)
    films, series = films_of(tmp_path / "csv"), read_series(tmp_path / "series.csv")
    shutil.rmtree(tmp_path / "dicom" / "1.2.4.2")
    found = make_plan(films, series, "tcia", {}, tmp_path / "dicom", workers=2, keep_dicom=True)
    assert (found.series, found.transfer_bytes) == (1, series["1.2.4.2"].bytes)


def test_a_disk_that_is_a_byte_too_small_stops_and_one_that_is_just_large_enough_does_not(
    listed, tmp_path, monkeypatch
):
    found = plan(listed, tmp_path)
    for free in (peak_bytes(found), peak_bytes(found) - 1):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: shutil._ntuple_diskusage(free, 0, free))
        if free == peak_bytes(found):
            require_space(found, tmp_path)
        else:
            with pytest.raises(MiramError, match=r"are needed at the peak[\s\S]*Free space"):
                require_space(found, tmp_path)


def test_nothing_left_needs_no_room(tmp_path):
    done = make_plan({}, {}, "tcia", {}, tmp_path, workers=2, keep_dicom=False)
    assert peak_bytes(done) == 0


def test_the_time_is_told_at_the_measured_rate_else_at_stated_ones(listed, tmp_path):
    found = plan(listed, tmp_path)._replace(transfer_bytes=36 * 10**9)
    told = describe(found, listed[1], 5, 4, History(), tmp_path)
    assert "time: 2.0 h at 5.0 MB/s, 0.4 h at 25.0 MB/s, 0.1 h at 100.0 MB/s" in told
    measured = History(transferred_bytes=20_000_000, transfer_seconds=2.0)
    told = describe(found, listed[1], 5, 4, measured, tmp_path)
    assert "time: 1.0 h at 10.0 MB/s for one worker, as measured so far" in told


@pytest.mark.parametrize("first", [{}, {"crops_from": "archive"}])
def test_a_catalogue_of_the_other_crops_is_neither_planned_nor_cut(server, tmp_path, first):
    where = tcia(server)
    other = {**where, "settings": where["settings"] | ({} if first else {"crops_from": "archive"})}
    list_tiny(tmp_path, {**where, "settings": where["settings"] | first})
    with pytest.raises(MiramError, match=r"lists other series than crops\.from: (archive|films) needs") as refused:
        plan_films(places_in(tmp_path), **other, cutting=Cutting(**CROPS), workers=2, keep_dicom=False)
    assert "miram catalogue" in refused.value.remedy
    with pytest.raises(MiramError, match="lists other series"):
        cut_tiny(tmp_path, other)


def test_planning_leaves_every_byte_of_the_folder(server, tmp_path, capsys):
    list_tiny(tmp_path, tcia(server))

    def there() -> dict[str, tuple[int, bytes]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*")
        }

    before = there()
    server.asked.clear()
    plan_films(places_in(tmp_path), **tcia(server), cutting=Cutting(**CROPS), workers=2, keep_dicom=False)
    assert there() == before and not server.asked
    assert "still to come: 8 series of 4 films" in capsys.readouterr().out
