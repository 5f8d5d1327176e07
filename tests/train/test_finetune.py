import numpy as np
import pandas as pd
import pytest
import torch
from plain_values import of_values
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_classifier import SEEN
from torch.nn.functional import cross_entropy

from miram.errors import MiramError
from miram.layout import Cell
from miram.models._timm import create_model
from miram.models.classifier import Classifier
from miram.models.encoder import Encoder
from miram.models.export import load_classifier
from miram.predictions import Question, read_predictions
from miram.recipe import Tuning
from miram.train import finetune as module
from miram.train import trial
from miram.train.augment import to_images
from miram.train.classifiers import Lesions, Split, labelled_lesions, read_split, resized_to
from miram.train.finetune import finetune
from miram.train.seen import Seen
from miram.train.store import Store
from miram.train.trial import (
    FinetuneViews,
    Trial,
    class_weights,
    layer_groups,
    loss_of,
    mixed_loss,
    mixing_share,
    shuffled_batches,
)

VALUES = {
    "encoder": {"patch": 8, "channels": 1, "width": 16, "depth": 2, "heads": 2, "mlp_ratio": 2.0},
    "pool": "mean",
    "task": "pathology_4class",
    "side": 32,
    "seed": 0,
    "batch": 4,
    "epochs": 3,
    "warmup_epochs": 1,
    "lr": [0.01],
    "weight_decay": 0.01,
    "layer_decay": 1.0,
    "mixup": 0.0,
    "drop_path": 0.1,
    "head_init_std": 0.01,
    "threshold": 0.5,
    "keep_network": True,
    "accelerator": "cpu",
    "precision": "32-true",
    "threads": 1,
    "rotation_degrees": 25.0,
    "zoom_min": 0.8,
    "zoom_max": 1.2,
    "intensity_shift": 20.0,
}
FILES = ["log.csv", "model.safetensors", "predictions.parquet"]


@pytest.fixture
def tune(lesions, store_paths, tmp_path):
    """tune(name, encoder_file=None, edit=None, **changes); `edit` changes the lesion table with its splits."""

    def run(name, encoder_file=None, edit=None, **changes):
        tables = pd.read_csv(lesions / "lesions.csv", keep_default_na=False)
        tables = tables.merge(pd.read_csv(lesions / "splits.csv")[["lesion_id", "split"]])
        if edit is not None:
            edit(tables)
        lesions_csv, splits_csv = tmp_path / "lesions.csv", tmp_path / "splits.csv"
        tables.drop(columns="split").to_csv(lesions_csv, index=False)
        tables[["lesion_id", "split"]].to_csv(splits_csv, index=False)
        tuning = of_values(Tuning, {**VALUES, **changes})
        own = Lesions(*store_paths, lesions_csv, splits_csv, tuning.task, resized_to(tuning.side))
        return finetune(tmp_path / name, own, encoder_file, tuning, seen=Seen(**SEEN))

    return run


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_predictions_are_probabilities_of_validation_and_test_lesions(tune, tmp_path):
    facts = tune("run", threads=2)
    assert torch.get_num_threads() == 2
    file = tmp_path / "run" / "predictions.parquet"
    classes = ["BENIGN_MASS", "MALIGNANT_MASS", "BENIGN_CALC", "MALIGNANT_CALC"]
    asked = read_predictions(file, Cell("strict", "pathology_4class", "finetune", "mae", VALUES["seed"])).question
    assert asked == Question("pathology_4class", "finetune", VALUES["seed"], tuple(classes), None, None)
    predictions = pd.read_parquet(file)
    probabilities = [f"prob_{name}" for name in classes]
    assert list(predictions.columns) == ["lesion_id", "patient_id", "split", "label", *probabilities]
    assert predictions["split"].tolist() == ["validation"] * 3 + ["test"] * 3
    assert predictions["lesion_id"].tolist() == [f"lesion_{i:02}" for i in range(6, 12)]
    assert set(predictions["label"]) <= set(classes)
    assert (predictions[probabilities].dtypes == np.float32).all()
    assert predictions[probabilities].sum(1).to_numpy() == pytest.approx(1.0, abs=1e-6)
    assert {"device", "cpu_capability", "threads"} <= facts.keys()
    assert facts["lesions"] == {"train": 6, "validation": 3, "test": 3} and facts["epochs"] == 3


def test_the_log_tells_the_best_epoch_and_the_model_is_of_it(tune, tmp_path):
    facts = tune("run", epochs=6)
    log = pd.read_csv(tmp_path / "run" / "log.csv")
    names = ["epoch", "train_loss", "val_loss", "val_accuracy", "val_macro_auc", "lr"]
    assert list(log.columns) == names and list(log["epoch"]) == [1, 2, 3, 4, 5, 6]
    best = log.sort_values(["val_macro_auc", "val_accuracy"], ascending=False, kind="stable").iloc[0]
    assert facts["best_epoch"] == best["epoch"] and facts["val_macro_auc"] == best["val_macro_auc"]
    predictions = pd.read_parquet(tmp_path / "run" / "predictions.parquet").query("split == 'validation'")
    chosen = predictions.filter(like="prob_").to_numpy().argmax(1)
    classes = [name.removeprefix("prob_") for name in predictions.filter(like="prob_")]
    assert np.mean([classes[c] for c in chosen] == predictions["label"]) == pytest.approx(best["val_accuracy"])
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as file:
        assert {"head.weight", "norm.weight", "encoder.pos_embed"} <= set(file.keys())


def test_the_kept_model_is_that_of_the_best_epoch_neither_the_first_nor_the_last(tune, monkeypatch):
    seen, evaluated = [], module.evaluated
    for used in (module, trial):
        monkeypatch.setattr(used, "evaluated", lambda *given: seen.append(evaluated(*given)) or seen[-1])
    told = {"val_accuracy": 0.5}
    monkeypatch.setattr(trial, "validation_scores", lambda *_, **__: {**told, "val_macro_auc": len(seen) == 2})
    facts = tune("run")
    assert (facts["best_epoch"], facts["val_macro_auc"], facts["epochs"]) == (2, True, 3)
    assert [torch.equal(seen[3], of_epoch) for of_epoch in seen[:3]] == [False, True, False]


def test_of_several_learning_rates_the_best_on_validation_is_kept_as_if_it_had_been_alone(tune, tmp_path):
    alone = {lr: tune(f"alone-{lr}", lr=[lr]) for lr in (0.02, 0.01, 1e-6)}
    chosen = max(alone, key=lambda lr: (alone[lr]["val_macro_auc"], alone[lr]["val_accuracy"]))  # the first such
    assert chosen != 1e-6
    facts = tune("several", lr=list(alone))
    assert facts["lr"] == chosen and len({own["val_macro_auc"] for own in alone.values()}) > 1
    assert [row["val_macro_auc"] for row in facts["tried"]] == [own["val_macro_auc"] for own in alone.values()]
    assert contents(tmp_path / "several") == contents(tmp_path / f"alone-{chosen}")


def test_a_network_that_is_not_to_be_kept_goes_and_its_predictions_stay_the_same(tune, tmp_path):
    tune("run")
    kept = contents(tmp_path / "run")
    tune("run", keep_network=False)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["log.csv", "predictions.parquet"]
    for name in ("log.csv", "predictions.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == kept[name]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tune, tmp_path):
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        tune(name, seed=seed)
    assert contents(tmp_path / "first") == contents(tmp_path / "again")
    assert contents(tmp_path / "first") != contents(tmp_path / "other")


def test_test_lesions_have_no_part_in_the_model(tune, tmp_path):
    def relabelled(tables):
        tables.loc[tables["split"] == "test", "pathology"] = "MALIGNANT"

    def removed(tables):
        tables.drop(tables[tables["split"] == "test"].index[1:], inplace=True)

    for name, edit in (("whole", None), ("relabelled", relabelled), ("removed", removed)):
        tune(name, edit=edit)
    for name in ("log.csv", "model.safetensors"):
        assert len({contents(tmp_path / folder)[name] for folder in ("whole", "relabelled", "removed")}) == 1


def test_lesions_set_apart_have_no_part_at_all(tune, tmp_path):
    def set_apart(tables):
        tables.loc[tables["lesion_id"].isin(["lesion_00", "lesion_11"]), "split"] = "excluded"

    facts = tune("run", edit=set_apart)
    assert facts["lesions"] == {"train": 5, "validation": 3, "test": 2}


def test_a_pretrained_encoder_is_the_start(tune, tmp_path, run_pretraining):
    run_pretraining(tmp_path / "mae", "mae", epochs=1, warmup_epochs=0)
    encoder_file = tmp_path / "mae" / "encoder.safetensors"
    tune("scratch", lr=[1e-12])
    tune("tuned", encoder_file, lr=[1e-12])
    with safe_open(encoder_file, "pt") as pretrained:
        for name, same in (("scratch", False), ("tuned", True)):
            with safe_open(tmp_path / name / "model.safetensors", "pt") as model:
                weight = model.get_tensor("encoder.blocks.0.attn.qkv.weight")
                assert torch.allclose(weight, pretrained.get_tensor("blocks.0.attn.qkv.weight"), atol=1e-6) == same


def test_weights_of_timm_are_a_start_and_those_of_other_sizes_are_named(tune, tmp_path):
    sizes = {"patch_size": 8, "in_chans": 1, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
    for name, changes in (("vit", {}), ("flat", {"depth": 1}), ("deep", {"depth": 3})):
        network = create_model("vit_tiny_patch16_224", img_size=64, num_classes=10, **sizes | changes)
        save_file(network.state_dict(), tmp_path / f"{name}.safetensors")
    tune("tuned", tmp_path / "vit.safetensors", lr=[1e-12])
    with (
        safe_open(tmp_path / "vit.safetensors", "pt") as given,
        safe_open(tmp_path / "tuned" / "model.safetensors", "pt") as tuned,
    ):
        for name in ("patch_embed.proj.weight", "blocks.1.attn.qkv.weight", "blocks.0.mlp.fc1.bias"):
            assert torch.allclose(tuned.get_tensor(f"encoder.{name}"), given.get_tensor(name), atol=1e-6)
    for name, depth in (("flat", 1), ("deep", 3)):
        with pytest.raises(MiramError, match=rf"{name}\.safetensors holds another architecture: depth {depth} instead"):
            tune("refused", tmp_path / f"{name}.safetensors")
    with pytest.raises(MiramError, match=r"gone\.safetensors does not exist"):
        tune("refused", tmp_path / "gone.safetensors")
    assert not (tmp_path / "refused").exists()


def test_the_class_token_can_be_the_feature_and_there_are_two_class_tasks(tune, tmp_path):
    facts = tune("run", pool="class", task="pathology", encoder={**VALUES["encoder"], "channels": 3})
    model, classes, multi_label, seen = load_classifier(tmp_path / "run" / "model.safetensors")
    assert seen == SEEN
    assert (model.pool, classes, multi_label) == ("class", ("BENIGN", "MALIGNANT"), False)
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    predictions = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert list(predictions.columns[4:]) == ["prob_BENIGN", "prob_MALIGNANT"]
    assert set(predictions["label"]) <= {"BENIGN", "MALIGNANT"}


def test_a_class_that_validation_lacks_is_left_out_of_the_auc(tune):
    def two_classes(tables):
        tables["abnormality"] = "mass"
        tables.loc[tables["split"] == "validation", "pathology"] = ["BENIGN", "MALIGNANT", "BENIGN"]

    assert 0 <= tune("run", edit=two_classes)["val_macro_auc"] <= 1


@pytest.mark.parametrize("name", ["train", "validation"])
def test_a_split_of_one_class_is_refused(tune, name):
    def one_class(tables):
        tables.loc[tables["split"] == name, ["abnormality", "pathology"]] = "mass", "BENIGN"

    with pytest.raises(MiramError, match=f"All {name} lesions are BENIGN_MASS"):
        tune("run", edit=one_class)


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_split_without_labels_is_refused_before_training(tune, name, monkeypatch):
    def without(tables):
        tables.loc[tables["split"] == name, "mass_margins"] = ""

    monkeypatch.setattr(trial, "build_encoder", lambda *_: pytest.fail("training has begun"))
    with pytest.raises(MiramError, match=f"No {name} lesion has a label for task mass_margins"):
        tune("run", task="mass_margins", edit=without)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tables: tables.replace("lesion_04", "lesion_99", inplace=True), "lesion_99 is not in the store"),
        (
            lambda tables: tables.replace("BENIGN", "UNPROVEN", inplace=True),
            "UNPROVEN.* is not a class of pathology_4class",
        ),
    ],
    ids=["no crop", "unknown class"],
)
def test_tables_that_do_not_fit_are_named(edit, message, tune):
    with pytest.raises(MiramError, match=message):
        tune("run", edit=edit)


def test_an_encoder_that_cannot_be_built_is_told_with_the_value(tune):
    with pytest.raises(MiramError, match=r"The encoder cannot be built: .*30"):
        tune("run", side=30)


def test_a_loading_process_that_is_killed_for_memory_is_told_with_the_sizes(tune, monkeypatch):
    def killed(*arguments):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(Trial, "_optimise", killed)
    with pytest.raises(MiramError, match="fine-tuning at side 32, batch 4: DataLoader worker") as fault:
        tune("run")
    assert "lower threads (now 1)" in fault.value.remedy


@pytest.mark.parametrize(("batch", "where"), [(2, "diverged: training loss nan"), (4, r"lesion_06 is not finite")])
def test_divergence_is_named_and_leaves_no_file(tune, tmp_path, batch, where):
    with pytest.raises(MiramError, match=where):
        tune("run", lr=[1e30], batch=batch)
    assert not (tmp_path / "run").exists()


def test_a_run_that_ends_early_leaves_no_file(tune, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "predictions", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune("run")
    assert not (tmp_path / "run").exists()


def test_training_is_plain_adam_on_the_weighted_cross_entropy(tune, tmp_path, monkeypatch, lesions, store_paths):
    for used in (module, trial):
        monkeypatch.setattr(used, "best", lambda log: log[-1])
    tune("run", epochs=2, drop_path=0.0)
    table = labelled_lesions(lesions / "lesions.csv", lesions / "splits.csv", VALUES["task"])
    split, *others = (
        read_split(Store(*store_paths), table, name, resized_to(32)) for name in ("train", "validation", "test")
    )
    weights = class_weights(split.targets)
    names = ("rotation_degrees", "zoom_min", "zoom_max", "intensity_shift")
    views = FinetuneViews(split, 0, {name: VALUES[name] for name in names})
    torch.manual_seed(0)
    model = Classifier(Encoder(side=32, **VALUES["encoder"], drop_path=0.0), classes=4, pool="mean", head_init_std=0.01)
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.01)
    losses = []
    for rate, keys in zip((0.0, 0.005, 0.01, 0.005), shuffled_batches(6, 0, 4, 2), strict=True):
        samples, targets = zip(*(views[key] for key in keys), strict=True)
        labels = torch.tensor(np.stack(targets)).argmax(1)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        logits = model(to_images(torch.from_numpy(np.stack(samples)), 1))
        losses.append(cross_entropy(logits, labels, weights))
        losses[-1].backward()
        optimizer.step()
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as file:
        for name, value in model.state_dict().items():
            if not name.endswith("qkv.bias"):  # the keys' bias has no gradient but rounding errors
                assert torch.allclose(file.get_tensor(name), value, atol=1e-5), name
    with torch.no_grad():
        logits = model.eval()(to_images(torch.from_numpy(np.concatenate([other.views for other in others])), 1))
    predicted = pd.read_parquet(tmp_path / "run" / "predictions.parquet").filter(like="prob_").to_numpy()
    assert predicted == pytest.approx(logits.softmax(1).numpy(), abs=1e-4)
    validation = torch.tensor(others[0].targets).argmax(1)
    log = pd.read_csv(tmp_path / "run" / "log.csv")
    assert list(log["lr"]) == [0.005, 0.005]
    assert log["train_loss"].iloc[1] == pytest.approx(sum(losses[2:]).item() / 2, rel=1e-3)
    assert log["val_loss"].iloc[1] == pytest.approx(cross_entropy(logits[:3], validation, weights).item(), rel=1e-3)


def test_the_augmentation_follows_the_seed():
    split = Split(
        None, np.random.default_rng(0).integers(0, 256, (1, 8, 8), dtype=np.uint8), np.ones((1, 1), np.float32)
    )
    augmentation = {"rotation_degrees": 25.0, "zoom_min": 0.8, "zoom_max": 1.2, "intensity_shift": 20.0}
    seen = [FinetuneViews(split, seed, augmentation)[epoch, 0][0] for seed, epoch in ((0, 0), (1, 0), (0, 1), (0, 0))]
    assert not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[0], seen[2])
    assert np.array_equal(seen[0], seen[3])


def test_class_weights_are_inverse_to_the_classes_share():
    assert class_weights(np.eye(2)[[0, 0, 0, 1]]).tolist() == pytest.approx([4 / 6, 4 / 2])
    assert class_weights(np.eye(3)[[0, 0, 2]]).tolist() == pytest.approx([3 / 6, 0.0, 3 / 3])


def test_a_multi_label_task_gives_independent_probabilities_of_the_lesions_that_have_a_label(tune, tmp_path):
    facts = tune("run", task="mass_margins")
    table = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert facts["lesions"] == {"train": 3, "validation": 2, "test": 1}  # the masses
    assert facts["without_label"] == {"test": 2, "train": 3, "validation": 1}
    assert dict(zip(table["lesion_id"], table["label"], strict=True)) == {
        "lesion_06": "ILL_DEFINED-SPICULATED",
        "lesion_08": "CIRCUMSCRIBED",
        "lesion_10": "ILL_DEFINED-SPICULATED",
    }
    assert load_classifier(tmp_path / "run" / "model.safetensors")[2]
    probabilities = table.filter(like="prob_")
    assert list(probabilities)[:2] == ["prob_ILL_DEFINED", "prob_CIRCUMSCRIBED"]
    assert probabilities.to_numpy().min() > 0 and abs(probabilities.sum(axis=1) - 1).min() > 0.01


def test_the_loss_of_a_multi_label_task_is_that_of_each_class_by_itself():
    logits, targets = torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    probabilities = logits.sigmoid()
    expected = -(targets * probabilities.log() + (1 - targets) * (1 - probabilities).log()).mean()
    assert loss_of(logits, targets, None).item() == pytest.approx(expected.item())


def test_a_layer_learns_by_its_share_of_the_rate():
    model = Classifier(Encoder(side=32, **VALUES["encoder"], drop_path=0.0), classes=4, pool="mean", head_init_std=0.01)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    shares = {names[id(p)]: group["share"] for group in layer_groups(model, 0.5) for p in group["params"]}
    assert set(shares) == set(names.values())
    assert shares["head.weight"] == shares["norm.weight"] == 1
    assert shares["encoder.blocks.1.attn.qkv.weight"] == 0.5
    assert shares["encoder.blocks.0.mlp.fc1.bias"] == 0.25
    assert shares["encoder.cls_token"] == shares["encoder.patch_embed.proj.weight"] == 0.125


def test_mixup_layer_decay_drop_path_and_precision_change_the_training(tune, tmp_path):
    changes = {"plain": {}, "mixed": {"mixup": 0.8}, "decayed": {"layer_decay": 0.5}, "dropped": {"drop_path": 0.5}}
    changes["rounded"] = {"precision": "bf16-mixed"}
    for name, changed in changes.items():
        tune(name, **{"drop_path": 0.0, **changed})
    assert len({contents(tmp_path / name)["model.safetensors"] for name in changes}) == 5


def test_paths_are_dropped_in_the_training_of_every_epoch_and_never_in_evaluation(tune, monkeypatch):
    seen, forward = [], Classifier.forward
    monkeypatch.setattr(Classifier, "forward", lambda self, images: seen.append(self.training) or forward(self, images))
    tune("run", epochs=2)
    assert seen == [True, True, False] * 2 + [False, False]  # 2 steps and validation an epoch; validation, test


def test_a_fresh_encoder_follows_the_seed(tune, tmp_path, monkeypatch):
    monkeypatch.setattr(Trial, "_optimise", lambda self: torch.tensor(0.0))
    for name, seed in (("one", 1), ("other", 2)):
        tune(name, seed=seed)
    assert contents(tmp_path / "one")["model.safetensors"] != contents(tmp_path / "other")["model.safetensors"]


def test_mixing_shares_follow_the_seed_and_are_one_when_it_is_off():
    def shares(seed, epoch):
        return [mixing_share(seed, epoch, step, 0.8) for step in range(100)]

    drawn = shares(0, 1)
    assert mixing_share(0, 1, 3, 0.0) == 1
    assert drawn == shares(0, 1)
    assert drawn != shares(1, 1) and drawn != shares(0, 2)
    assert 0 < min(drawn) < 0.3 and 0.7 < max(drawn) < 1


def test_a_mixed_view_is_a_share_of_each_of_two_and_so_is_its_loss():
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    views = (images * 255).to(torch.uint8)
    targets = torch.eye(4)[:2]
    seen = []

    class Recorded(Classifier):
        def forward(self, images):
            seen.append(images)
            return super().forward(images)

    torch.manual_seed(0)
    encoder = Encoder(side=32, **{**VALUES["encoder"], "depth": 1}, drop_path=0.0)
    model = Recorded(encoder, classes=4, pool="mean", head_init_std=0.1)
    plain = to_images(views[:, 0], 1)
    loss = mixed_loss(model, plain, targets, torch.ones(4), 0.25).item()
    assert torch.allclose(seen[0], 0.25 * plain + 0.75 * plain.flip(0))
    logits = model(seen[0])
    swapped = 0.25 * cross_entropy(logits, torch.tensor([0, 1])) + 0.75 * cross_entropy(logits, torch.tensor([1, 0]))
    assert loss == pytest.approx(swapped.item())


def test_every_epoch_takes_each_lesion_once_in_an_order_of_its_own_and_of_the_seed():
    batches = list(shuffled_batches(10, 0, 4, 2))
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    first, second = ([i for batch in half for _, i in batch] for half in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    assert batches != list(shuffled_batches(10, 1, 4, 2))


def test_a_network_of_timm_is_tuned_and_its_file_gives_the_same_answers(tune, tmp_path):
    network = create_model("test_resnet")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    theirs = {"encoder": {"timm": "test_resnet", "weights": "weights.pth"}, "pool": "own", "side": 64}
    tune("run", tmp_path / "weights.pth", **theirs, lr=[0.001], layer_decay=0.5, epochs=2)
    written = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    model = load_classifier(tmp_path / "run" / "model.safetensors").model
    start, moved = network.state_dict(), model.encoder.network.state_dict()
    assert not torch.equal(moved["conv1.0.weight"], start["conv1.0.weight"])
    assert not torch.equal(moved["bn1.running_mean"], start["bn1.running_mean"])
    tune("again", tmp_path / "weights.pth", **theirs, lr=[0.001], layer_decay=0.5, epochs=2)
    assert contents(tmp_path / "again") == contents(tmp_path / "run")
    assert np.isfinite(written.filter(like="prob_").to_numpy()).all()
