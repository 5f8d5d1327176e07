"""The hours that are predicted for named cards."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from miram import layout, params
from miram.cli import main
from miram.planning import cards, flops
from miram.planning.hours import Job
from miram.recipe import Timm

ROOT = Path(__file__).parents[2]
PAPER = params.load(ROOT / "params.yaml", "paper")


@pytest.mark.parametrize(
    ("card", "precision", "tera"),
    [
        ("rtx-3060-ti", "float32", 9), ("rtx-3060-ti", "mixed", 16), ("a100", "float32", 14), ("a100", "tf32", 70),
        ("a100", "mixed", 120), ("h100", "float32", 40), ("h100", "mixed", 250),
    ],
)  # fmt: skip
def test_the_rates_are_within_a_quarter_of_those_that_others_sustained(card, precision, tera):
    assert cards.sustained(cards.CARDS[card])[precision] / 1e12 == pytest.approx(tera, rel=0.25)


def test_a_card_without_tf32_has_no_row_of_it_and_mixed_is_faster():
    for card in cards.CARDS.values():
        rates = cards.sustained(card)
        assert ("tf32" in rates) is (card.tf32 is not None) and rates["mixed"] > rates["float32"]
    assert {name for name, card in cards.CARDS.items() if card.dtype == "fp16"} == {"rtx-2080-ti", "t4", "v100"}


def test_the_operations_of_an_image_are_those_of_the_arithmetic():
    sizes, recipe = PAPER.encoder, replace(params.recipe_of(PAPER, "mae"), encoder=replace(PAPER.encoder, depth=2))
    width, tokens = sizes.width, 1 + (112 // sizes.patch) ** 2
    block = 2 * tokens * width * (4 * width + 2 * 4 * width) + 2 * 2 * tokens**2 * width
    embedding = 2 * (tokens - 1) * sizes.patch**2 * 3 * width
    step = 3 * 2 * block + 2 * embedding  # no gradient of the pixels
    assert flops.finetuning_flops(replace(sizes, depth=2), 112) == pytest.approx(step, rel=0.01)
    assert flops.pretraining_flops(recipe) == flops.pretraining_flops(replace(recipe, batch=64, precision="auto"))


def test_measured_rates_of_the_card_stand_beside_the_predicted(tmp_path):
    measured = {
        "machine": {"gpu": "NVIDIA RTX 4090", "processor": "p"},
        "encoder": asdict(PAPER.encoder),
        "precision": "32-true",
        "steps": [{"method": "mae", "side": 112, "images_per_second": 10.0}],
        "finetuning": [],
    }
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps(measured))
    job = Job("pre-training mae", 112, 36_000.0, tmp_path / "none.json", "pre-training mae", "one")
    scopes = {"headline": [job], "whole": [job, job._replace(side=448)]}
    found = cards.measured_hours(scopes, PAPER.encoder, [bench], ["rtx-4090", "a100"])
    assert found == [("rtx-4090", "32-true", {"headline": 1.0})]
    text = cards.as_text({"headline": 1e18, "whole": 2e18}, {"rtx-4090": cards.CARDS["rtx-4090"]}, found)
    assert [line.split("|")[-2].strip() for line in text.splitlines()[-4:]] == ["predicted"] * 3 + ["measured"]
    assert "32-true" in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("gpu", "found"),
    [
        ("NVIDIA L4", ["l4"]), ("NVIDIA L40S", []), ("Tesla T4", ["t4"]), ("Quadro T400", []),
        ("NVIDIA A100-SXM4-80GB", ["a100"]), ("NVIDIA H100 80GB HBM3", ["h100"]), ("Tesla V100-PCIE-16GB", ["v100"]),
        ("NVIDIA GeForce RTX 3060 Ti", ["rtx-3060-ti"]), ("NVIDIA GeForce RTX 3090", ["rtx-3090"]),
        ("NVIDIA GeForce RTX 3090 Ti", []), ("NVIDIA GeForce RTX 4090 Laptop GPU", []), ("", []),
    ],
)  # fmt: skip
def test_a_card_is_known_by_its_whole_name(gpu, found):
    assert [card for card in cards.CARDS if cards.is_named(card, gpu)] == found


def test_the_plan_of_a_card_does_not_depend_on_the_number_of_devices(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(flops, "pretraining_flops", lambda recipe: 1e9)
    monkeypatch.setattr(flops, "finetuning_flops", lambda sizes, side: 1e9)
    monkeypatch.chdir(tmp_path)
    said = []
    for devices in ("1", "4"):
        text = (ROOT / "params.yaml").read_text().replace("devices: 1", f"devices: {devices}")
        (tmp_path / "params.yaml").write_text(text)
        assert main(["--preset", "paper", "plan", "--card", "a100"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_the_operations_of_a_network_of_timm_are_its_own():
    macs = 4.09e9  # of ResNet-50 at 224, as published with it
    assert flops.finetuning_flops(Timm("resnet50", None), 224) == pytest.approx(3 * 2 * macs, rel=0.02)


def test_the_headline_is_part_of_the_whole_table():
    whole, headline = params.jobs(PAPER), params.headline_jobs(PAPER)
    assert set(map(str, headline)) < set(map(str, whole))
    cells = [layout.Cell(*place) for stage, place in headline if stage.modes]
    assert cells == [cell for cell in params.cells(PAPER) if cell[:2] == ("strict", "pathology_4class")]
    assert [place for stage, place in headline if stage.name == "pretrain"] == [
        place for place in params.pretrainings(PAPER) if place[0] == "strict"
    ]


def test_the_plan_of_a_card_agrees_with_the_arithmetic_of_the_whole_table(monkeypatch, capsys):
    giga = {"mae": 14.5, "mocov3": 63.7, "miram-full": 46.6, "miram-linformer": 41.6, "miram-performer": 47.1}
    giga = {(name, 112): count for name, count in {**giga, "miram-nystrom": 49.3}.items()}
    giga |= {("miram-nystrom", 224): 192.6, ("mae", 224): 58.1}
    monkeypatch.setattr(flops, "pretraining_flops", lambda recipe: 1e9 * giga[recipe.name, recipe.side])  # as counted
    monkeypatch.setattr(flops, "finetuning_flops", lambda sizes, side: {112: 25.9e9, 224: 105.1e9}[side])
    monkeypatch.chdir(ROOT)
    assert main(["--preset", "paper", "plan", "--card", "all"]) == 0
    said = capsys.readouterr().out
    whole = float(said.partition("whole ")[2].partition(".  ")[0].split(". ")[0])
    assert whole == pytest.approx(4.4 + 1.8, rel=0.25)  # with the two rows that settle what side and batch do
    assert len(cards.CARDS) >= 6 and all(name in said for name in cards.CARDS)
    assert main(["--preset", "paper", "plan", "--card", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err
