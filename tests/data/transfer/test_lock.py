import pytest

from miram.data.transfer.lock import check_lock, write_lock
from miram.data.transfer.receipt import Item
from miram.errors import MiramError

SERIES = {
    "1.2": [Item("1-2.dcm", 5, "m", "bb", "1.2.2"), Item("1-1.dcm", 4, "m", "aa", "1.2.1")],
    "1.1": [Item("1-1.dcm", 3, "m", "cc", ""), Item("1-2.dcm", 3, "m", "dd", "")],
}


def test_the_lock_is_sorted(tmp_path):
    write_lock(SERIES, tmp_path / "a.csv")
    write_lock(dict(reversed(SERIES.items())), tmp_path / "d.csv")
    text = (tmp_path / "a.csv").read_text()
    assert text == "series_uid,sop_uid,bytes,sha256\n1.1,,3,cc\n1.1,,3,dd\n1.2,1.2.1,4,aa\n1.2,1.2.2,5,bb\n"
    assert (tmp_path / "d.csv").read_text() == text
    assert check_lock(tmp_path / "a.csv", tmp_path / "d.csv") == 4


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("1.2,1.2.1,4,aa\n", "", r"1 instances only in .*own\.csv: 1\.2\.1 of series 1\.2"),
        ("1.1,,3,cc\n", "1.1,,3,cc\n1.9,1.9.1,1,ee\n", r"1 instances only in .*other\.csv: 1\.9\.1 of series 1\.9"),
        ("5,bb", "5,xx", r"1 instances with different SHA-256 or length: 1\.2\.2 of series 1\.2"),
        ("5,bb", "6,bb", "1 instances with different SHA-256 or length"),
        ("3,dd", "3,ee", "1 instances with different SHA-256 or length: no SOPInstanceUID of series 1.1"),
        ("sop_uid", "uid", r"has the columns \['series_uid', 'uid'"),
    ],
)
def test_differences_are_named(tmp_path, old, new, named):
    write_lock(SERIES, tmp_path / "own.csv")
    (tmp_path / "other.csv").write_text((tmp_path / "own.csv").read_text().replace(old, new))
    with pytest.raises(MiramError, match=named):
        check_lock(tmp_path / "own.csv", tmp_path / "other.csv")


def test_a_lock_that_is_not_there_is_named(tmp_path):
    write_lock(SERIES, tmp_path / "own.csv")
    with pytest.raises(MiramError, match=r"none\.csv cannot be read"):
        check_lock(tmp_path / "own.csv", tmp_path / "none.csv")
