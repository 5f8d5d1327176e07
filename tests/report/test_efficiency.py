"""Accuracy against cost, from files that a bench and a study leave."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image
from tiny_study import HEADLINE, PRETRAINED, write_bench, write_study

from miram.evaluate.claims import Limits, read_limits
from miram.looks import looks
from miram.report.efficiency import efficiency, read_benches, verdicts
from miram.report.page_figures import costs
from miram.report.page_tables import leader, metric_groups


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The keywords of the report of a small study, whose folder is the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_study("demo", protocols=["strict"], tasks=["pathology_4class"], modes=["finetune"], seeds=[0])


def made(study, benches):
    results = study["results"]
    inputs = results / "metrics.csv", study["kinds"], study["pretrained"], benches
    efficiency(*inputs, study["claims_yaml"], results, preset="demo", headline=HEADLINE)
    return results / "efficiency.csv", results / "efficiency.md", results / "efficiency.png"


def test_each_method_stands_with_its_accuracy_and_the_cost_that_its_record_names(study):
    study["pretrained"]["mocov3"].unlink()
    csv, md, png = made(study, study["bench_jsons"])
    table = pd.read_csv(csv).set_index("method")
    assert list(table.index) == [method for method in PRETRAINED if method != "mocov3"]
    facts = json.loads(study["pretrained"]["mae"].read_text())["facts"]
    assert table.loc["mae", "pretrain_seconds"] == pytest.approx(facts["seconds"], abs=1e-3)
    assert table.loc["mae", "pretrain_peak_memory_mib"] == pytest.approx(facts["peak_memory_bytes"] / 2**20, abs=1e-3)
    metrics = pd.read_csv(study["results"] / "metrics.csv")
    own = metrics.query("method == 'mae' and metric == 'accuracy' and split == 'test' and seed.isna()")
    assert table.loc["mae", "accuracy_percent_value"] == pytest.approx(100 * own["value"].iloc[0], abs=1e-3)
    assert "DEMO" in md.read_text() and "a processor, 32-true (bench.json)" in md.read_text()
    assert Image.open(png).size[0] > 1000


def test_a_value_without_an_interval_stands_alone(study):
    path = study["results"] / "metrics.csv"
    metrics = pd.read_csv(path).assign(low=None, high=None)
    metrics.to_csv(path, index=False)
    value = metrics.query("method == 'mae' and metric == 'accuracy' and split == 'test' and seed.isna()")[
        "value"
    ].item()
    assert re.search(rf"\| mae +\| {100 * value:.1f} +\|", made(study, [])[1].read_text())
    look = looks(study["kinds"])
    assert len(costs(pd.read_csv(study["results"] / "efficiency.csv"), look)) == 2
    (group,) = metric_groups(pd.read_csv(path), pd.read_csv(study["paper_csv"]), look, HEADLINE, None)
    assert leader(group)["interval"] == ""


def test_without_a_bench_the_rest_is_there_and_the_gap_is_named(study):
    quick = Path("quick.json")
    quick.write_text(json.dumps({"exponents": [], "attention": []}))
    text = made(study, [quick])[1].read_text()
    assert "miram-nystrom" in text and "No bench was made: `miram bench`." in text


def test_linear_growth_and_less_memory_are_decided_by_the_measurements(tmp_path):
    path = write_bench(tmp_path / "bench.json")
    (row,) = verdicts(read_benches([path])[0], Limits(1.05, 785))
    assert row["attention"] == "nystrom, fused" and row["memory linear"] == row["time linear"] == "yes"
    assert row["full fused / this, at 785"] == f"{785 ** (1 - 1.05):.2f}"
    assert row["full naive / this, at 785"] == f"{785 ** (2 - 1.05):.2f}"
    (row,) = verdicts(read_benches([path])[0], Limits(1.04, 3137))
    assert (row["memory linear"], row["time linear"]) == ("NO", "yes")  # the paper claims it of memory alone
    assert row["full fused / this, at 3137"] == f"{3137 ** (1 - 1.05):.2f}"


@pytest.mark.parametrize("kind", ["full", "nystrom"])
def test_what_a_bench_did_not_measure_is_not_stated(study, kind):
    (path,) = study["bench_jsons"]
    measured = json.loads(path.read_text())
    for part in ("attention", "exponents"):
        measured[part] = [row for row in measured[part] if row["kind"] != kind]
    path.write_text(json.dumps(measured | {"crossovers": []}))
    text = made(study, [path])[1].read_text()
    if kind == "full":
        assert "Full attention, not measured." in text
        assert re.search(r"\| nystrom, fused .* yes +\| yes( +\| -){4} +\|", text)
    else:
        assert "No linear attention was measured." in text


def test_what_is_linear_is_stated_by_the_claims_alone(study):
    claims = study["claims_yaml"].read_text()
    study["claims_yaml"] = Path("claims.yaml")
    study["claims_yaml"].write_text(claims.replace("exponent: 1.1 ", "exponent: 1.03 ").replace(" 785 ", " 197 "))
    text = made(study, study["bench_jsons"])[1].read_text()
    assert "to a power of at most 1.03" in text and "| NO " in text and "full naive / this, at 197" in text


@pytest.mark.parametrize("deleted", ["linear-memory", "less-memory", "less-memory-than-fused"])
def test_a_claim_may_be_deleted(study, deleted):
    claims = yaml.safe_load(study["claims_yaml"].read_text())
    del claims[deleted]
    study["claims_yaml"] = Path("claims.yaml")
    study["claims_yaml"].write_text(yaml.safe_dump(claims))
    text = made(study, study["bench_jsons"])[1].read_text()
    assert ("No claim says what is linear." in text) == (deleted == "linear-memory")
    assert "full naive / this, at 785" in text


def test_without_claims_about_memory_nothing_is_called_linear_or_compared(study):
    Path("claims.yaml").write_text("{}")
    assert read_limits(Path("claims.yaml")) == Limits(None, None)
    (row,) = verdicts(read_benches(study["bench_jsons"])[0], Limits(None, None))
    assert row["memory linear"] == row["time linear"] == "-" and not any(
        "full" in name and "this" in name for name in row
    )
    study["claims_yaml"] = Path("claims.yaml")
    assert "No claim says at how many tokens to compare." in made(study, study["bench_jsons"])[1].read_text()
