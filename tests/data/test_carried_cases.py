import gzip
import hashlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from miram.data.case_lists import needed_series, read_cases, read_lesions
from miram.data.cbis_ddsm import cases
from miram.data.transfer.sources.idc import read_index
from miram.errors import MiramError

sys.path.append(str(Path(__file__).parents[2] / "tools"))
from carry_cases import carry_cases


@pytest.fixture
def lists(tmp_path):
    """The carried case lists as files."""
    cases.write_case_lists(tmp_path / "csv")
    return tmp_path / "csv"


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_carried_rows_are_those_of_the_lists_and_their_table_can_be_made_again(shared, tmp_path):
    carried = cases.carried_lesions()
    pd.testing.assert_frame_equal(carried, read_lesions(shared / "data"))
    digest = carry_cases(shared / "data", tmp_path / "cases.csv.gz")
    made, table = (gzip.decompress(path.read_bytes()) for path in (tmp_path / "cases.csv.gz", cases.TABLE))
    assert made == table and digest == cases.SHA256 == hashlib.sha256(table).hexdigest()


def test_the_index_of_the_imaging_data_commons_has_the_bytes_that_are_told_of_the_archive():
    index = read_index("cbis_ddsm")
    assert sum(index[uid].series.bytes for uid in needed_series(cases.carried_lesions())) == cases.ARCHIVE_BYTES


def test_written_lists_read_as_what_they_were_written_from(lists):
    pd.testing.assert_frame_equal(read_lesions(lists), cases.carried_lesions())
    assert cases.differences(read_cases(lists)) == ([], [])


def test_a_difference_is_named_with_its_list_its_row_and_its_column(lists):
    path = lists / "mass_case_description_train_set.csv"
    edit(path, "IRREGULAR-ARCHITECTURAL_DISTORTION", "OVAL")
    last = path.read_text().splitlines()[-1]
    path.write_text(path.read_text() + last.replace(last.split(",")[0], "P_99999") + "\n")
    row = path.read_text().count("\n") - 1
    missing, words = cases.differences(read_cases(lists))
    assert missing == []
    assert words[0].startswith(f"{path.name}, row {row} (Mass-Training_P_99999_")
    assert words[0].endswith("not among the carried lesions")
    assert words[1:] == [
        f"{path.name}, row 1 (Mass-Training_P_00001_LEFT_CC_1): mass_shape is 'OVAL', but "
        "'IRREGULAR-ARCHITECTURAL_DISTORTION' in the carried lists"
    ]


def test_a_lesion_that_is_missing_is_named_and_the_order_of_rows_is_none_of_a_difference(lists):
    path = lists / "calc_case_description_test_set.csv"
    header, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(rest)]) + "\n")
    missing, words = cases.differences(read_cases(lists))
    assert (len(missing), words) == (1, []) and missing[0].startswith("Calc-Test_" + first.split(",")[0])


def test_the_lists_of_another_archive_are_not_compared(archive, tmp_path):
    csv_dir, _ = archive.write(tmp_path / "other")
    assert cases.differences(read_cases(csv_dir)) == ([], [])


@pytest.mark.parametrize("damage", [lambda body: body[:-9], lambda body: gzip.compress(gzip.decompress(body) + b"x")])
def test_a_damaged_table_is_refused(tmp_path, monkeypatch, damage):
    path = tmp_path / "cases.csv.gz"
    path.write_bytes(damage(cases.TABLE.read_bytes()))
    monkeypatch.setattr(cases, "TABLE", path)
    cases.carried_cases.cache_clear()
    try:
        with pytest.raises(MiramError, match=r"cases\.csv\.gz is damaged"):
            cases.carried_cases()
    finally:
        cases.carried_cases.cache_clear()


@pytest.mark.parametrize(
    ("settings", "carried"),
    [
        ({"collection": "CBIS-DDSM"}, True),
        ({"collection": "cbis_ddsm"}, True),
        ({"folder": "x"}, True),
        ({"collection": "CMMD"}, False),
    ],
)
def test_only_cbis_ddsm_is_carried(settings, carried):
    assert cases.carries(settings) is carried
