"""The hours of all trainings, by rates that a bench measured and by the records of finished ones."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest

from miram import params
from miram.cli import main
from miram.data.cbis_ddsm.cases import carried_lesions
from miram.data.splits import split_lesions
from miram.layout import FINETUNE, Cell
from miram.planning import hours as budget

ROOT = Path(__file__).parents[2]
PAPER = params.load(ROOT / "params.yaml", "paper")
MAE = params.recipe_of(PAPER, "mae")
RATES = {
    "machine": {"gpu": None, "processor": "a processor"},
    "encoder": asdict(PAPER.encoder),
    "steps": [{"method": "mae", "side": 112, "images_per_second": 10.0}],
    "finetuning": [{"side": 112, "images_per_second": 5.0}],
}


@pytest.fixture
def bench(tmp_path):
    """A bench file that knows MAE at side 112."""
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(RATES))
    return path


DIVISION = {name: getattr(PAPER.splits, name) for name in ("validation_fraction", "candidates", "seed")}
COUNTS = {  # of preset paper, as published in our plan
    "strict": (2781, 2394, [1941, 840, 704], [871, 379, 361], [899, 388, 378], [1018, 452, 322], [792, 344, 263]),
    "published": (2864, 2458, [2004, 860, 704], [881, 394, 361], [905, 409, 378], [1084, 442, 322], [827, 343, 263]),
}


@pytest.mark.parametrize("protocol", PAPER.splits.protocols)
def test_the_counts_before_any_film_is_there_are_those_of_the_stages(protocol, tmp_path):
    lesions = carried_lesions().assign(film_sha256="")
    splits = split_lesions(lesions, protocol=protocol, **DIVISION)
    backgrounds = pd.DataFrame({"film_uid": lesions["film_uid"].unique()}).assign(background_id=lambda t: t["film_uid"])
    files = [tmp_path / name for name in ("lesions.csv", "splits.csv", "backgrounds.csv")]
    for table, file in zip((lesions, splits, backgrounds), files, strict=True):
        table.to_csv(file, index=False)
    names = PAPER.finetune.tasks
    listed = budget.listed_images(protocol, names, backgrounds_per_film=1, **DIVISION)
    assert budget.count_images(*files, names) == listed
    assert (listed.lesions, listed.backgrounds) == COUNTS[protocol][:2]
    assert [listed.tasks[name] for name in names if name != "pathology"] == list(COUNTS[protocol][2:])


def test_the_counts_follow_the_values_that_divide():
    def counted(backgrounds_per_film=1, **changes):
        division = DIVISION | {"candidates": 5} | changes
        return budget.listed_images("strict", ["calc_type"], backgrounds_per_film=backgrounds_per_film, **division)

    usual = counted()
    assert counted(seed=43).tasks != usual.tasks and counted(validation_fraction=0.1).tasks != usual.tasks
    assert counted(backgrounds_per_film=2).backgrounds == 2 * usual.backgrounds


def test_hours_are_images_by_the_rate_and_stand_beside_what_finished_runs_took(bench, tmp_path):
    done, open_ = tmp_path / "record.json", tmp_path / "none.json"
    done.write_text(json.dumps({"facts": {"seconds": 7200.0}}))
    recipe = replace(MAE, side=112, batch=100, epochs=10)
    images = budget.Images(250, 0, {"pathology": (90, 30, 60)})
    cell = Cell("strict", "pathology", FINETUNE, "mae", 0)
    jobs = [budget.pretraining_job("mae", recipe, 250, 1, path, "mae") for path in (done, open_)]
    jobs += [budget.classifier_job(cell._replace(mode=mode), 112, images, 10, open_) for mode in (FINETUNE, "knn")]
    (plan,) = budget.hours(jobs, PAPER.encoder, [bench]).values()
    rows = plan.set_index("what")
    assert list(rows["hours"] * 3600) == pytest.approx([2 * 200 * 10 / 10, (10 * (90 + 10) + 20) / 5, 60 / 5])
    assert rows.loc["pre-training mae", ["trainings", "finished", "taken"]].tolist() == [2, 1, 2.0]
    assert rows.loc["pre-training mae", "planned"] * 3600 == pytest.approx(200)
    text = budget.as_text({"a processor (bench)": plan}, 1, pretrain_seeds=2, finetune_seeds=1)
    assert f"Total if run sequentially: {(400 + 204 + 12) / 3600:.1f} h" in text
    assert "; 3 jobs, the longest 0.1 h. One more" in text  # the two classifiers are one job, of 216 s
    assert "One more seed for all methods: of pre-training 0.1 h, of fine-tuning 0.1 h." in text  # 200 s and 204 s


def test_a_divided_batch_of_mocov3_takes_a_quarter_longer_and_of_others_no_longer(tmp_path):
    for name, longer in (("mocov3", 1.25), ("mae", 1.0)):
        jobs = [
            budget.pretraining_job(
                name, replace(params.recipe_of(PAPER, name), accumulate=parts), 2048, 1, tmp_path, name
            )
            for parts in (1, 4)
        ]
        assert jobs[1].images == longer * jobs[0].images


def test_what_was_not_measured_or_is_of_another_network_is_not_counted(bench, tmp_path):
    recipe = replace(MAE, side=448, batch=100, epochs=10)
    jobs = [budget.pretraining_job("mae", recipe, 250, 1, tmp_path / "none.json", "mae")]
    assert budget.hours(jobs, params.load(ROOT / "params.yaml", "demo").encoder, [bench]) == {}
    plans = budget.hours(jobs, PAPER.encoder, [bench])
    assert budget.totals(plans) == {"a processor (bench)": "more than 0.0 h (0.0 days)"}
    assert "| pre-training mae |        448 |" in budget.as_text(plans, 1, pretrain_seeds=1, finetune_seeds=1)


def test_a_network_of_others_has_no_hours_by_the_rates_of_ours(bench, tmp_path):
    images = budget.Images(250, 0, {"pathology": (90, 30, 60)})
    cell = Cell("strict", "pathology", FINETUNE, "theirs", 0)
    jobs = [budget.classifier_job(cell, 112, images, 10, tmp_path / "none.json", other) for other in ("", "theirs")]
    (plan,) = budget.hours(jobs, PAPER.encoder, [bench]).values()
    known = plan.set_index("what")["hours"].notna()
    assert known["fine-tuning"] and not known["fine-tuning theirs"]


def test_rates_of_whole_trainings_go_before_those_of_bare_steps(tmp_path, bench):
    own = {"method": "mae", "side": 112, "images_per_second": 8.0}
    forms = [own | {"form": "fused"}, own | {"form": "package", "images_per_second": 1.0}]
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(RATES | {"training": forms}))
    job = budget.pretraining_job("mae", replace(MAE, side=112, batch=8, epochs=3600), 8, 1, tmp_path / "none", "mae")
    assert budget.hours([job], PAPER.encoder, [path])["a processor (gpu)"]["hours"].tolist() == pytest.approx([1.0])


def test_the_plan_of_the_paper_is_there_before_any_data_and_the_demo_waits_for_its_lesions(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "bench"
    folder.mkdir(parents=True)
    steps = [*RATES["steps"], {"method": "mae", "side": 224, "images_per_second": 2.0}]
    (folder / "bench.json").write_text(json.dumps(RATES | {"steps": steps}))
    ask = ["--params", str(ROOT / "params.yaml"), "--preset"]
    assert main([*ask, "paper", "plan"]) == 0
    told = capsys.readouterr().out
    assert "fine-tuning" in told
    own = told.partition("a processor (bench)")[2].partition("Total")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in own.splitlines() if line.startswith("| pre-")]
    priced = {(what, side): planned for what, side, _, _, _, planned, *_ in rows}
    assert priced["pre-training mae-224", "224"] == "711.11"  # as MAE at that side: 2 images/s
    assert ("pre-training miram-nystrom-112", "112") in priced
    text = (ROOT / "params.yaml").read_text().replace("validation_fraction: 0.3", "validation_fraction: 0.1")
    (tmp_path / "other.yaml").write_text(text)
    assert main(["--params", "other.yaml", "--preset", "paper", "plan"]) == 0
    assert capsys.readouterr().out != told
    assert main([*ask, "demo", "plan"]) == 1
    assert "no splits yet" in capsys.readouterr().err
