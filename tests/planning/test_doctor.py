import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from miram import layout, params
from miram.cli import main
from miram.cli.stage import recipes
from miram.errors import MiramError
from miram.planning import doctor, gpu
from miram.planning.memory import memory_of

DEAD = "http://127.0.0.1:9/"  # the discard port: nothing listens there
GB = 10**9
ROOT = Path(__file__).parents[2]
DEMO, PAPER = (params.load(ROOT / "params.yaml", preset) for preset in ("demo", "paper"))


@pytest.fixture(scope="module")
def methods():
    """The pre-trainings of preset paper, their batches in four parts."""
    own = recipes(params.load(ROOT / "params.yaml", "paper"))
    return {name: replace(recipe, accumulate=4) for name, recipe in own.items()}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """asked({old: new}): what `miram --preset paper doctor` examines with that in the place of this in params.yaml."""
    monkeypatch.chdir(tmp_path)
    facts = {}
    monkeypatch.setattr(doctor, "examine", lambda folder, **given: facts.update(given) or {})

    def ask(changes=None, *options):
        text, *small = (ROOT / "params.yaml").read_text().partition("\n  small:")  # its source and tasks are others
        for old, new in (changes or {}).items():
            text = text.replace(old, new)
        (tmp_path / "params.yaml").write_text(text + "".join(small))
        assert main(["--preset", "paper", "doctor", *options]) == 0
        return dict(facts)

    return ask


def write(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


def test_a_gpu_that_is_too_small_is_stopped_with_the_division_of_the_batch_that_fits(methods):
    assert doctor.check_memory(methods, 1, 80 * GB, crops_bytes=0).level == "ok"
    found = doctor.check_memory(methods, 1, 10 * GB, crops_bytes=0)
    assert found.level == "stop"
    divisions = dict(re.findall(r"methods\.([a-z0-9-]+)\.accumulate: (\d+)", found.remedy))
    assert "miram-full" in divisions
    smaller = {name: replace(methods[name], accumulate=int(accumulate)) for name, accumulate in divisions.items()}
    assert doctor.check_memory({**methods, **smaller}, 1, 10 * GB, crops_bytes=0).level == "ok"


def test_devices_share_the_batch_and_some_memory_is_left_free(methods):
    recipe = methods["mae"]
    gpu_bytes = int(1.01 * memory_of(recipe, recipe.batch // recipe.accumulate).peak)
    assert doctor.check_memory({"mae": recipe}, 1, gpu_bytes, crops_bytes=0).level == "stop"
    assert doctor.check_memory({"mae": recipe}, 2, gpu_bytes, crops_bytes=0).level == "ok"
    smaller = replace(recipe, accumulate=2 * recipe.accumulate)
    both = {"smaller": smaller, "mae": recipe}
    assert "at most, predicted for mae" in doctor.check_memory(both, 1, None, crops_bytes=0).text


def test_the_crops_that_lie_on_the_gpu_take_their_room(methods):
    recipe = replace(methods["mae"], precision="32-true")
    gpu_bytes = int((memory_of(recipe, recipe.batch // recipe.accumulate).peak + 0.5 * GB) / 0.9)
    assert doctor.check_memory({"mae": recipe}, 1, gpu_bytes, crops_bytes=0.4 * GB).level == "ok"
    found = doctor.check_memory({"mae": recipe}, 1, gpu_bytes, crops_bytes=0.6 * GB)
    assert found.level == "stop" and "and 0.6 GB of crops" in found.text
    assert found.remedy == "Set methods.mae.accumulate: 8."
    kept_elsewhere = doctor.check_memory({"mae": recipe}, 1, gpu_bytes, crops_bytes=2.7 * GB)
    assert kept_elsewhere.level == "ok" and "and 0.0 GB of crops" in kept_elsewhere.text


@pytest.mark.parametrize("preset", ["paper", "paper-448", "paper-896"])
def test_a_batch_that_is_divided_by_itself_fits_a_small_gpu_unless_one_image_is_too_much(preset):
    own = recipes(params.load(ROOT / "params.yaml", preset))
    crops_bytes = doctor.CROP_BYTES * (3568 + 3103)
    assert doctor.check_memory(own, 1, 8 * GB, crops_bytes).level == "ok"
    assert doctor.check_memory(own, 1, None, crops_bytes).level == "ok"
    found = doctor.check_memory(own, 1, GB, crops_bytes)
    assert found.level == "stop" and "Set pretrain.recompute: true" in found.remedy


def test_a_gpu_that_not_even_one_image_fits_on_is_told(methods):
    found = doctor.check_memory(methods, 1, GB // 2, crops_bytes=0)
    assert found.level == "stop"
    assert "methods.mae: One image at a time at side 112 takes" in found.remedy


def test_memory_is_predicted_without_a_gpu(methods):
    assert "no GPU to compare" in doctor.check_memory(methods, 1, None, crops_bytes=0).text


def test_a_small_disk_is_stopped_and_what_is_there_already_counts(tmp_path):
    assert doctor.check_disk(tmp_path, 163.5, 30, keep_dicom=True, free_gb=100).level == "stop"
    assert doctor.check_disk(tmp_path, 163.5, 30, keep_dicom=True, free_gb=200).level == "ok"
    assert doctor.check_disk(tmp_path, 163.5, 30, keep_dicom=False, free_gb=100).level == "ok"
    assert doctor.check_disk(tmp_path, 163.5, 30, keep_dicom=False, free_gb=29).level == "stop"
    write(tmp_path / "dicom" / "1.2" / "1-1.dcm", 2_000_000)
    assert doctor.check_disk(tmp_path, 0.002, 30, keep_dicom=True, free_gb=30).level == "ok"


def test_the_size_and_the_time_of_the_download_are_told(tmp_path):
    own = doctor.check_disk(tmp_path, 0.0, 1, False, 200).text
    assert own.startswith("Disk: up to 1.0 GB to write (`dvc repro`") and own.endswith("; 200.0 GB free.")
    assert "163.5 GB to download (9.1 h at 5 MB/s" in doctor.check_disk(tmp_path, 163.5, 30, True, 200).text


def test_what_is_to_be_made_follows_the_networks_that_stay_and_what_is_there_already_counts(asked):
    everything = asked()["made_gb"]
    # 108 networks and 16 encoders of 0.34 GB, 16 checkpoints of 1.3 to 1.7 GB and one under way, crops, and the rest
    assert everything == pytest.approx(124 * 0.343 + 2 * 12.56 + 1.73 + 3 * 2.67 + 1, rel=0.01)
    assert asked({"seeds: [0, 1, 2, 3, 4]": "seeds: [4]"})["made_gb"] == everything
    assert asked({"pathology, mass_margins,": "mass_margins,"})["made_gb"] == pytest.approx(
        everything - 18 * 0.343, 0.01
    )
    write(layout.pretrain("paper", "strict", "mae", 0) / "checkpoint.pt", 10**7)
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
    (tmp_path / "own").mkdir()
    Image.new("L", (50, 20)).save(tmp_path / "own" / "a.png")  # of fewer bytes than pixels
    (tmp_path / "own" / "table.csv").write_text("image,patient,label\na.png,P1,cyst\n")
    found = asked(
        {
            **{"source: tcia": "source: images", "folder: ../images": "folder: own"},
            **{"table_csv: ../images/images.csv": "table_csv: own/table.csv"},
            **{"tasks: [pathology_4class": "tasks: [label", "label, pathology, mass_margins, mass_shape": "label"},
            ", calc_type, calc_distribution]": "]",
        }
    )
    assert (found["source"], found["settings"]["folder"], found["crops_bytes"]) == ("images", "own", 1000)


def test_nothing_is_asked_that_the_stages_ahead_do_not_need(asked):
    devices = {"threads: 8, devices: 1": "threads: 8, devices: 4"}
    everything = asked(devices)
    assert everything["settings"]["api_url"] and everything["methods"] and not everything["elsewhere"]
    assert (everything["accelerator"], everything["devices"]) == ("auto", 4)
    tuned = asked(devices, "--stages", "classify", "explain")
    assert (tuned["settings"], tuned["methods"]) == ({}, {})
    assert (tuned["accelerator"], tuned["devices"]) == ("auto", 1)
    assert asked(devices, "--stages", "pretrain")["devices"] == 4
    fetched = asked(devices, "--stages", "catalogue", "crops", "--elsewhere")
    assert (fetched["settings"], fetched["accelerator"]) == (everything["settings"], None)
    assert fetched["elsewhere"]


def test_what_runs_elsewhere_is_asked_neither_for_its_gpu_nor_for_its_network(tmp_path, methods, monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2 * GB, 0, 2 * GB))
    facts = {
        **{"keep_dicom": True, "methods": methods, "accelerator": "cuda", "devices": 1, "encoder": PAPER.encoder},
        **{"crops_bytes": GB, "made_gb": 1.0, "timeout_seconds": 20.0, "hours": {}, "elsewhere": True},
    }
    here = doctor.examine(tmp_path, source="images", settings={"folder": str(tmp_path)}, **facts)
    assert any(str(tmp_path) in finding.text for finding in here)
    gone = {"collection": "CBIS-DDSM", "api_url": DEAD, "csv_url": DEAD, "fallback": None}
    with pytest.raises(MiramError, match="1 of 4 checks stop"):  # the disk, which is the same one
        doctor.examine(tmp_path / "none yet" / "paper", source="tcia", settings=gone, **facts)


def test_float16_without_a_gpu_is_refused_where_training_would_take_place(asked, capsys, monkeypatch):
    monkeypatch.setattr(doctor.torch.cuda, "is_available", lambda: False)
    asked({"precision: auto,": "precision: 16-mixed,"}, "--elsewhere")
    assert main(["--preset", "paper", "doctor"]) == 1
    assert "16-mixed, which needs a GPU" in capsys.readouterr().err


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


def test_what_the_preset_does_not_ask_for_stops_nothing(tmp_path, methods, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config.local").write_text("[core]\n    remote = store\n")
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)  # a GPU, and far too small
    monkeypatch.setattr(gpu.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(gpu.torch.cuda, "get_device_name", lambda place: "a card")
    monkeypatch.setattr(gpu.torch.cuda, "get_device_capability", lambda place: (3, 5))
    monkeypatch.setattr(gpu.torch.cuda, "mem_get_info", lambda: (1, 1))
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "apptainer" else None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2 * GB, 0, 2 * GB))
    found = doctor.examine(
        tmp_path, keep_dicom=True, source="images", settings={"folder": str(tmp_path)}, methods=methods,
        accelerator="cpu", devices=1, encoder=DEMO.encoder, crops_bytes=GB, made_gb=1.9, timeout_seconds=20.0,
        hours={"a card (bench)": "3.0 h (0.1 days)"}, elsewhere=False,
    )  # fmt: skip
    assert {finding.level for finding in found} == {"ok"}
    texts = {finding.text for finding in found}
    assert "Containers: apptainer" in texts
    assert any("up to 1.9 GB to write" in text and "2.0 GB free." in text for text in texts)
    assert "DVC remote: store, of unknown address" in texts
    assert any("3.0 h (0.1 days) on a card (bench)" in text for text in texts)


def test_every_finding_is_printed_before_the_stop(tmp_path, methods, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    gone = {"collection": "CBIS-DDSM", "api_url": DEAD, "csv_url": DEAD, "fallback": None}
    with pytest.raises(MiramError, match=r"\d of 8 checks stop"):
        doctor.examine(
            tmp_path, keep_dicom=False, source="tcia", settings=gone, methods=methods,
            accelerator="cpu", devices=1, encoder=PAPER.encoder, crops_bytes=GB, made_gb=62.8, timeout_seconds=20.0,
            hours={}, elsewhere=False,
        )  # fmt: skip
    lines = capsys.readouterr().out
    for start in ("warning No GPU", "ok      Memory", "Disk: 163.5 GB",
                  "up to 62.8 GB to write", "stop    TCIA does not answer correctly: http",
                  "warning Containers", "DVC"):  # fmt: skip
        assert start in lines
