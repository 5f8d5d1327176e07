"""The command `miram images`, and its look before the first run."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from miram import layout
from miram.cli import main
from miram.data.own_images import table

ROOT = Path(__file__).parents[2]
CHECK = ["images", "--check"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working folder with 30 images of 15 patients, of which one is in colour; its parameters can be edited."""
    monkeypatch.chdir(tmp_path)
    random, rows = np.random.default_rng(0), []
    for number in range(30):
        Image.fromarray(random.integers(0, 256, (20, 20), dtype=np.uint8)).save(f"{number}.png")
        rows.append((f"{number}.png", f"P{number // 2}", ("benign", "malignant")[number // 2 % 2]))
    Image.new("RGB", (4, 4), (1, 2, 3)).save("0.png")
    pd.DataFrame(rows, columns=["image", "patient", "label"]).to_csv("images.csv", index=False)

    def edit(**images):
        document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        document["source"] = "images"
        document["sources"]["images"] |= {"folder": ".", "table_csv": "images.csv", **images}
        for name in ("demo", "paper"):
            document["presets"][name]["finetune"]["tasks"] = ["label"]
        Path("params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")

    edit()
    return edit


def test_the_check_says_what_the_stage_will_say_and_leaves_a_page_alone(project, capfd):
    assert main(CHECK) == 0
    said = capfd.readouterr().out
    page = layout.images_check("my-images")
    assert "Sensitivity is measured for: no class" in said and str(page) in said
    assert [path for path in Path("data").rglob("*") if path.is_file()] == [page]
    assert page.read_text().count("data:image/png;base64,") == 24
    assert main(["images"]) == 0
    overview = layout.overview("my-images").read_text()
    assert overview in said and overview in capfd.readouterr().out
    made = json.loads(layout.record("images", "my-images").read_text())
    assert made["values"]["images"]["set_aside_max"] == 0.1 and made["facts"]["set_aside"] == 1


def test_the_check_fails_where_the_run_would_stop_and_shows_everything_all_the_same(project, capfd):
    project(set_aside_max=0.0)
    assert main(CHECK) == 1
    said = capfd.readouterr()
    assert "1 of 16 lesions of class benign are set aside" in said.err and "What leaks" in said.out
    assert "The run would stop: images.csv: 1 of 16" in layout.images_check("my-images").read_text()
    assert main(["images"]) == 1 and not layout.record("images", "my-images").exists()
    project(positive="Benign")
    for command in (CHECK, ["images"]):
        assert main(command) == 1
        assert "'Benign' is not a class of the table: 'benign', 'malignant'" in capfd.readouterr().err


def test_the_audit_of_an_archive_is_not_made_of_own_images(project, capfd):
    assert main(["audit"]) == 2
    assert "source is images" in capfd.readouterr().err


def test_the_table_is_read_once(project, monkeypatch):
    read, sheets = table.read_sheet, []
    monkeypatch.setattr(table, "read_sheet", lambda *given: sheets.append(given) or read(*given))
    assert main(["images"]) == 0 and len(sheets) == 1
