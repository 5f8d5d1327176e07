import json

import pandas as pd

from miram.evaluate.summary import write_curves, write_summary

ROWS = """protocol,method,seed,split,metric,value
strict,mae,0,test,accuracy,0.5
strict,mae,1,test,accuracy,0.6
strict,mae,0,validation,accuracy,0.9
strict,mae,,test,accuracy,0.1
strict,mae,0,test,macro_auc,
published,mae,0,test,accuracy,0.7
"""


def test_the_summary_holds_the_mean_over_seeds_of_each_test_metric(tmp_path):
    (tmp_path / "metrics.csv").write_text(ROWS)
    write_summary(tmp_path / "metrics.csv", tmp_path / "summary.json")
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "published": {"mae": {"accuracy": 0.7}},
        "strict": {"mae": {"accuracy": 0.55}},
    }


def test_the_curves_hold_the_loss_of_every_epoch_of_each_run(tmp_path):
    for name, losses in (("a", [3.0, 2.0]), ("b", [1.0])):
        log = pd.DataFrame({"epoch": range(1, len(losses) + 1), "loss": losses, "lr": 0.1})
        log.to_csv(tmp_path / f"{name}.csv", index=False)
    write_curves({"strict/a": tmp_path / "a.csv", "b": tmp_path / "b.csv"}, tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text() == "run,epoch,loss\nstrict/a,1,3\nstrict/a,2,2\nb,1,1\n"
    write_curves({}, tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text() == "run,epoch,loss\n"
