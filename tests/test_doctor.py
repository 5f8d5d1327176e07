import pytest

from miram import doctor
from miram.errors import MiramError

DEAD = "http://127.0.0.1:9/"  # the discard port: nothing listens there


def test_a_machine_without_a_gpu_is_stopped_unless_the_cpu_is_asked_for():
    assert doctor.check_accelerator("auto", cuda=False).level == "stop"
    assert doctor.check_accelerator("cpu", cuda=False).level == "warning"


def test_a_small_disk_is_stopped_and_what_is_there_already_counts(tmp_path):
    assert doctor.check_disk(tmp_path, 163.5, keep_dicom=True, free_gb=100).level == "stop"
    assert doctor.check_disk(tmp_path, 163.5, keep_dicom=True, free_gb=200).level == "ok"
    assert doctor.check_disk(tmp_path, 163.5, keep_dicom=False, free_gb=100).level == "ok"
    (tmp_path / "dicom" / "1.2").mkdir(parents=True)
    (tmp_path / "dicom" / "1.2" / "1-1.dcm").write_bytes(bytes(2_000_000))
    assert doctor.check_disk(tmp_path, 0.002, keep_dicom=True, free_gb=doctor.PICTURES_GB).level == "ok"


def test_the_size_and_the_time_of_the_download_are_told(tmp_path):
    assert "163.5 GB to download (9.1 h at 5 MB/s" in doctor.check_disk(tmp_path, 163.5, True, 200).text


def test_a_source_that_does_not_answer_is_named_with_its_parameter():
    finding = doctor.check_address("sources.tcia.api_url", DEAD, timeout_seconds=1.0)
    assert finding.level == "stop"
    assert DEAD in finding.text
    assert "sources.tcia.api_url" in finding.remedy


def test_every_finding_is_printed_before_the_stop(tmp_path, capsys):
    with pytest.raises(MiramError, match="2 of 4 checks stop"):
        doctor.examine(
            tmp_path, addresses={"a": DEAD, "b": DEAD}, keep_dicom=False, accelerator="cpu", timeout_seconds=1.0
        )  # fmt: skip
    lines = capsys.readouterr().out
    assert "warning No GPU" in lines
    assert "Disk: 163.5 GB" in lines
