import re
import shutil
from pathlib import Path

import pytest

from miram import layout, params
from miram.cli import main
from miram.errors import MiramError
from miram.planning import doctor
from miram.planning.memory import memory_of

DEAD = "http://127.0.0.1:9/"  # the discard port: nothing listens there
GB = 10**9
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def methods():
    """The values of each pre-training of preset paper."""
    return params.stage_values(params.load(ROOT / "params.yaml", "paper"), "doctor")["methods"]


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """asked({old: new}): what `miram --preset paper doctor` examines with that in the place of this in params.yaml."""
    monkeypatch.chdir(tmp_path)
    facts = {}
    monkeypatch.setattr(doctor, "examine", lambda folder, **given: facts.update(given) or {})

    def ask(changes=None):
        text = (ROOT / "params.yaml").read_text()
        for old, new in (changes or {}).items():
            text = text.replace(old, new)
        (tmp_path / "params.yaml").write_text(text)
        assert main(["--preset", "paper", "doctor"]) == 0
        return dict(facts)

    return ask


H100 = doctor.Gpu("NVIDIA H100", (9, 0))


def check_accelerator(accelerator="auto", **changes):
    """What is found of a machine that will do, but for the changes."""
    facts = {
        "precision": "32-true",
        "devices": 1,
        "preset": "paper",
        "built": "13.0",
        "driver": (13, 1),
        "gpus": [H100],
    }
    kernels = ["sm_75", "sm_80", "sm_90", "compute_120"]
    return doctor.check_accelerator(accelerator, **{**facts, "kernels": kernels, **changes})


def write(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


def test_an_old_python_is_stopped():
    assert doctor.check_python((3, 10)).level == "stop"
    assert doctor.check_python((3, 11)).level == "ok"


@pytest.mark.parametrize(
    ("built", "driver", "reason"),
    [
        (None, None, "no NVIDIA driver"),
        ("13.0", None, "no NVIDIA driver"),
        (None, (12, 4), "build for CPUs"),
        ("13.0", (12, 4), "newer than the driver's 12.4"),
        ("12.8", (12, 4), "finds no device"),
    ],
)
def test_a_gpu_that_torch_cannot_use_stops_preset_paper_with_the_reason(built, driver, reason):
    finding = check_accelerator("auto", preset="paper", built=built, driver=driver, gpus=[])
    assert finding.level == "stop" and finding.remedy
    assert reason in finding.text


def test_the_cpu_is_enough_for_the_demo_and_allowed_for_the_paper():
    facts = {"built": None, "driver": None, "gpus": []}
    assert check_accelerator("auto", preset="demo", **facts).level == "ok"
    assert check_accelerator("cuda", preset="demo", **facts).level == "stop"
    assert check_accelerator("cpu", preset="paper", **facts).level == "warning"


def test_a_gpu_that_torch_finds_is_named():
    finding = check_accelerator()
    assert finding.level == "ok"
    assert "NVIDIA H100" in finding.text and "CUDA 13.1" in finding.text


def test_fewer_gpus_than_devices_are_stopped():
    assert check_accelerator(devices=4, gpus=[H100] * 4).level == "ok"
    finding = check_accelerator(devices=4)
    assert finding.level == "stop" and "compute.devices: 1" in finding.remedy
    assert "compute.devices is 4, and torch finds 1 GPU(s): NVIDIA H100" in finding.text


def test_a_gpu_for_which_torch_holds_no_kernels_is_stopped():
    volta = doctor.Gpu("Tesla V100", (7, 0))
    finding = check_accelerator(devices=2, gpus=[H100, volta])
    assert finding.level == "stop" and finding.remedy
    assert "Tesla V100 has compute capability 7.0" in finding.text and "sm_75, sm_80" in finding.text
    assert check_accelerator(devices=1, gpus=[H100, volta]).level == "ok"


@pytest.mark.parametrize(
    ("capability", "kernels", "runs"),
    [
        ((8, 9), ["sm_80"], True),  # a later one of the same generation
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80", "sm_100"], False),
        ((12, 1), ["sm_75", "compute_120"], True),  # PTX is compiled where it runs
        ((10, 0), ["compute_120"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100a", "compute_100a"], False),
        ((12, 0), ["compute_100f", "sm_100f"], False),
        ((10, 3), ["sm_100f"], True),
        ((7, 0), ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"], False),
        ((9, 0), [], False),
    ],
)
def test_kernels_run_on_the_devices_that_they_are_made_for(capability, kernels, runs):
    assert doctor.runs_on(capability, kernels) == runs


def test_a_gpu_that_is_too_small_is_stopped_with_the_division_of_the_batch_that_fits(methods):
    assert doctor.check_memory(methods, 80 * GB, crops_bytes=0).level == "ok"
    found = doctor.check_memory(methods, 10 * GB, crops_bytes=0)
    assert found.level == "stop"
    divisions = dict(re.findall(r"methods\.([a-z0-9-]+)\.accumulate: (\d+)", found.remedy))
    assert "miram-full" in divisions
    smaller = {name: {**methods[name], "accumulate": int(accumulate)} for name, accumulate in divisions.items()}
    assert doctor.check_memory({**methods, **smaller}, 10 * GB, crops_bytes=0).level == "ok"


def test_devices_share_the_batch_and_some_memory_is_left_free(methods):
    values = dict(methods["mae"])
    gpu_bytes = int(1.01 * memory_of(values, values["batch"] // values["accumulate"]).peak)
    assert doctor.check_memory({"mae": values}, gpu_bytes, crops_bytes=0).level == "stop"
    shared = values | {"devices": 2}
    assert doctor.check_memory({"mae": shared}, gpu_bytes, crops_bytes=0).level == "ok"
    assert (
        "at most, predicted of mae" in doctor.check_memory({"shared": shared, "mae": values}, None, crops_bytes=0).text
    )


def test_the_crops_that_lie_on_the_gpu_take_their_room(methods):
    peak = memory_of(methods["mae"], methods["mae"]["batch"] // methods["mae"]["accumulate"]).peak
    gpu_bytes = int((peak + GB) / 0.9)
    assert doctor.check_memory({"mae": methods["mae"]}, gpu_bytes, crops_bytes=0.9 * GB).level == "ok"
    found = doctor.check_memory({"mae": methods["mae"]}, gpu_bytes, crops_bytes=2.7 * GB)
    assert found.level == "stop" and "and 2.7 GB of crops" in found.text
    assert found.remedy == "Set methods.mae.accumulate: 8."


def test_preset_paper_896_takes_the_gpu_that_it_names():
    own = params.stage_values(params.load(ROOT / "params.yaml", "paper-896"), "doctor")["methods"]
    crops_bytes = doctor.CROP_BYTES * (3568 + 3103)
    assert doctor.check_memory(own, 32 * GB, crops_bytes).level == "ok"
    assert re.findall(r"methods\.([a-z-]+)", doctor.check_memory(own, 24 * GB, crops_bytes).remedy) == ["miram-full"]


def test_a_gpu_that_not_even_one_image_fits_on_is_told(methods):
    found = doctor.check_memory(methods, GB // 2, crops_bytes=0)
    assert found.level == "stop"
    assert "methods.mae: 1 image(s) at side 112, with all crops," in found.remedy


def test_memory_is_predicted_without_a_gpu_but_not_for_the_libraries_attention(methods):
    assert "no GPU to compare" in doctor.check_memory(methods, None, crops_bytes=0).text
    package = {"miram-nystrom": {**methods["miram-nystrom"], "backend": "package"}}
    assert doctor.check_memory(package, GB, crops_bytes=0).text.endswith("not predicted for backend package.")


def test_a_small_disk_is_stopped_and_what_is_there_already_counts(tmp_path):
    assert doctor.check_disk(tmp_path, 163.5, 30, keep_dicom=True, free_gb=100).level == "stop"
    assert doctor.check_disk(tmp_path, 163.5, 30, keep_dicom=True, free_gb=200).level == "ok"
    assert doctor.check_disk(tmp_path, 163.5, 30, keep_dicom=False, free_gb=100).level == "ok"
    assert doctor.check_disk(tmp_path, 163.5, 30, keep_dicom=False, free_gb=29).level == "stop"
    write(tmp_path / "dicom" / "1.2" / "1-1.dcm", 2_000_000)
    assert doctor.check_disk(tmp_path, 0.002, 30, keep_dicom=True, free_gb=30).level == "ok"


def test_the_size_and_the_time_of_the_download_are_told(tmp_path):
    own = doctor.check_disk(tmp_path, 0.0, 1, False, 200).text
    assert own.startswith("Disk: up to 1.0 GB to make (`dvc repro`") and own.endswith("; 200.0 GB free.")
    assert "163.5 GB to download (9.1 h at 5 MB/s" in doctor.check_disk(tmp_path, 163.5, 30, True, 200).text


def test_what_is_to_be_made_follows_the_networks_that_stay_and_what_is_there_already_counts(asked):
    everything = asked()["made_gb"]
    # 84 networks and 12 encoders of 0.34 GB, 12 checkpoints of 1.3 to 1.7 GB and one under way, crops, and the rest
    assert everything == pytest.approx(96 * 0.343 + 2 * 9.61 + 1.73 + 3 * 2.67 + 1, rel=0.01)
    assert asked({"seeds: [0, 1, 2, 3, 4]": "seeds: [4]"})["made_gb"] == everything
    assert asked({"pathology, mass_margins,": "mass_margins,"})["made_gb"] == pytest.approx(
        everything - 14 * 0.343, 0.01
    )
    write(layout.pretrain("paper", "strict", "mae") / "checkpoint.pt", 10**7)
    assert asked()["made_gb"] == pytest.approx(everything - 0.01)
    write(layout.data("paper") / "crops.u8", 10**6)  # a million bytes of crops: what there is decides, no estimate
    assert asked()["made_gb"] == pytest.approx(everything - 0.01 - 3 * 2.6684 + 2 * 0.001)


def test_the_crops_are_estimated_before_they_are_packed_and_then_known(asked):
    assert asked()["crops_bytes"] == pytest.approx(2.67 * GB, rel=0.01)
    assert asked({"backgrounds_per_film: 1": "backgrounds_per_film: 0"})["crops_bytes"] == pytest.approx(
        1.43 * GB, 0.01
    )
    write(layout.data("paper") / "crops.u8", 10**6)
    assert asked()["crops_bytes"] == 10**6


def test_of_images_of_ones_own_nothing_of_the_archive_is_asked(asked, tmp_path):
    write(tmp_path / "own" / "a.png", 1000)
    (tmp_path / "own" / "table.csv").write_text("image,patient,label\na.png,P1,cyst\n")
    found = asked(
        {
            **{"source: tcia": "source: images", "folder: ../images": "folder: own"},
            **{"table_csv: ../images/images.csv": "table_csv: own/table.csv"},
            **{"tasks: [pathology_4class": "tasks: [label", "label, pathology, mass_margins, mass_shape": "label"},
            ", calc_type, calc_distribution]": "]",
        }
    )
    assert found["settings"] == {"folder": "own", "table_csv": "own/table.csv"}
    assert (found["source"], found["crops_bytes"]) == ("images", 1000)


def test_float16_without_a_gpu_is_stopped_before_training_would_take_another():
    for place in ({"accelerator": "auto", "preset": "demo"}, {"accelerator": "cpu"}):
        finding = check_accelerator(**place, precision="16-mixed", gpus=[])
        assert finding.level == "stop" and "16-mixed, which needs a GPU" in finding.text
        assert check_accelerator(**place, precision="bf16-mixed", gpus=[]).level != "stop"
    assert check_accelerator(precision="16-mixed").level == "ok"


def test_the_source_is_asked_as_the_stages_ask_it_with_what_stands_in_for_it(asked):
    found = asked()
    assert found["source"] == "tcia" and found["settings"]["api_url"].startswith("https://nbia.")
    assert found["settings"]["fallback"]["source"] == "idc"
    assert len(found["settings"]["fallback"]["settings"]["bucket_urls"]) == 2
    assert asked({"fallback: idc": "fallback: null"})["settings"]["fallback"] is None


def test_a_missing_container_program_is_a_warning():
    assert doctor.check_container([]).level == "warning"
    assert doctor.check_container(["apptainer"]) == ("ok", "Containers: apptainer", "")


def test_a_missing_dvc_remote_is_a_warning_and_one_is_named_with_its_address(tmp_path):
    shared, own = tmp_path / "config", tmp_path / "config.local"
    shared.write_text("[core]\n    analytics = false\n")
    assert doctor.check_remote([shared, own]).level == "warning"
    shared.write_text("[core]\n    remote = store\n['remote \"store\"']\n    url = s3://bucket/miram\n")
    assert doctor.check_remote([shared, own]) == ("ok", "DVC remote: store, s3://bucket/miram", "")
    own.write_text("['remote \"store\"']\n    url = /mnt/my%20own\n")
    assert doctor.check_remote([shared, own]).text == "DVC remote: store, /mnt/my%20own"


def test_the_version_of_the_driver_is_that_of_its_cuda(monkeypatch):
    class Driver:
        def cuDriverGetVersion(self, number):
            number._obj.value = 12040
            return 0

    monkeypatch.setattr(doctor.ctypes, "CDLL", lambda name: Driver())
    assert doctor.driver_cuda() == (12, 4)


def test_what_the_preset_does_not_ask_for_stops_nothing(tmp_path, methods, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config.local").write_text("[core]\n    remote = store\n")
    monkeypatch.setattr(doctor.torch.cuda, "is_available", lambda: True)  # a GPU, and far too small
    monkeypatch.setattr(doctor.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(doctor.torch.cuda, "get_device_name", lambda place: "a card")
    monkeypatch.setattr(doctor.torch.cuda, "get_device_capability", lambda place: (3, 5))
    monkeypatch.setattr(doctor.torch.cuda, "mem_get_info", lambda: (1, 1))
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "apptainer" else None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2 * GB, 0, 2 * GB))
    found = doctor.examine(
        tmp_path, keep_dicom=True, source="images", settings={"folder": str(tmp_path)}, methods=methods,
        accelerator="cpu", precision="32-true", devices=1, preset="demo", crops_bytes=GB, made_gb=1.9,
        timeout_seconds=1.0, hours={"a card (bench)": "3.0 h (0.1 days)"},
    )["findings"]  # fmt: skip
    assert {finding["level"] for finding in found} == {"ok"}
    texts = {finding["text"] for finding in found}
    assert "Containers: apptainer" in texts
    assert any("up to 1.9 GB to make" in text and "2.0 GB free." in text for text in texts)
    assert "DVC remote: store, of unknown address" in texts
    assert any("3.0 h (0.1 days) on a card (bench)" in text for text in texts)


def test_every_finding_is_printed_before_the_stop(tmp_path, methods, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    gone = {"collection": "CBIS-DDSM", "api_url": DEAD, "csv_url": DEAD, "fallback": None}
    with pytest.raises(MiramError, match=r"\d of 9 checks stop"):
        doctor.examine(
            tmp_path, keep_dicom=False, source="tcia", settings=gone, methods=methods,
            accelerator="cpu", precision="32-true", devices=1, preset="paper", crops_bytes=GB, made_gb=62.8,
            timeout_seconds=1.0, hours={},
        )  # fmt: skip
    lines = capsys.readouterr().out
    for start in ("ok      Python", "warning No GPU", "ok      Memory", "Disk: 163.5 GB",
                  "up to 62.8 GB to make", "stop    TCIA does not answer as it should: http",
                  "warning Containers", "DVC"):  # fmt: skip
        assert start in lines
