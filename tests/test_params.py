import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from plain_values import of_values

from miram import layout, params
from miram.cli import main
from miram.data.tasks import CLASSES
from miram.errors import ParameterError
from miram.evaluate.differences import differs_in
from miram.evaluate.markdown import preset_of, subject
from miram.evaluate.scores import METRICS
from miram.params.schema import Metric
from miram.recipe import Recipe, Tuning

ROOT = Path(__file__).parent.parent
SHIPPED = (ROOT / "params.yaml").read_text()

TAKEN = ("demo", "paper", "paper-448", "paper-mine", "bench", "Mine", "../mine", "my_images", "-mine", "my images")


def load_edited(tmp_path, old, new, preset=None):
    assert old in SHIPPED
    file = tmp_path / "params.yaml"
    file.write_text(SHIPPED.replace(old, new, 1))
    return params.load(file, preset)


def test_the_shipped_file_starts_with_the_demo_and_holds_both_presets():
    assert params.load(ROOT / "params.yaml").preset == "demo"
    paper = params.load(ROOT / "params.yaml", "paper")
    assert (paper.encoder.width, paper.encoder.depth, paper.pretrain.epochs) == (768, 12, 500)


def test_a_preset_that_starts_from_another_replaces_what_it_sets_and_uses_its_data():
    paper, large = (params.load(ROOT / "params.yaml", name) for name in ("paper", "paper-896"))
    sides = {name: method.pretrain.side for name, method in large.methods.items()}
    assert set(sides.values()) == {448} and paper.methods["miram-nystrom"].pretrain.side == 224
    assert large.methods["miram-nystrom"].options == paper.methods["miram-nystrom"].options
    assert (large.encoder, large.sources, large.crops) == (paper.encoder, paper.sources, paper.crops)
    assert layout.data("paper-896") == layout.data("paper") != layout.data("demo")
    assert layout.results("paper-896") != layout.results("paper")


def test_the_distance_from_the_papers_setting_names_each_difference_and_its_size(tmp_path):
    paper = params.load(ROOT / "params.yaml", "paper")
    assert params.distance(paper, paper) == []
    longer = load_edited(tmp_path, "epochs: 500", "epochs: 400", "paper")
    assert params.distance(longer, paper) == [
        "pre-training 400 epochs at batch 1024 (the paper: 500 epochs at batch 1024)"
    ]
    told = params.distance(params.load(ROOT / "params.yaml", "small"), paper)
    assert [text.split()[0] for text in told] == ["encoder", "decoder", "crops", "pre-training", "fine-tuning"]
    assert "crops of the archive (the paper: cut from the films)" in told


def test_small_takes_the_archives_own_crops_and_goes_with_own_images_as_well(tmp_path):
    small = params.load(ROOT / "params.yaml", "small")
    assert (small.source, small.crops.from_, small.crops.component) == ("local", "archive", "union")
    values = params.stage_values(small, "crops")
    assert values["crops"] == {"bits": 8, "doubtful": "keep"} and values["settings"]["crops_from"] == "archive"
    text = SHIPPED.replace("source: tcia #", "source: images #").replace(
        "crops: {from: archive}", "crops: {from: films}"
    )
    file = tmp_path / "params.yaml"
    file.write_text(re.sub(r"tasks: \[pathology.*", "tasks: [label]", text))
    assert params.load(file, "small").source == "images"


def test_further_protocols_can_be_the_main_task_with_one_seed(tmp_path):
    small = params.load(ROOT / "params.yaml", "small")
    further = [cell for cell in params.cells(small) if cell.protocol == "published"]
    assert {(cell.task, cell.seed) for cell in further} == {("pathology_4class", 0)}
    assert {cell.task for cell in params.cells(small)} == set(small.finetune.tasks)
    places = [place for stage, place in params.jobs(small) if stage.name == "trivial"]
    assert ("published", "pathology_4class") in places and ("published", "pathology") not in places
    whole = load_edited(tmp_path, "splits: {further: main}", "splits: {further: all}", "small")
    assert len(params.cells(whole)) > len(params.cells(small))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("mask_ratio: 0.75", "mask_ratio: 7.5e-1", None),
        ("mask_ratio: 0.75", "mask_ratio: 75e-2", "75.0e-2"),
        ("mask_ratio: 0.75", "mask_ratio: 1.75", "less than 1"),
        ("mask_ratio: 0.75", "mask_ration: 0.75", "Unknown key pretrain.mask_ration"),
        ("resamples: 2000", "resamples: 500", "statistics.resamples: 500"),
        ("compared: [accuracy", "compared: [accuracies", "'accuracy'"),
        ("reference: miram-nystrom", "reference: miram", "statistics.reference: 'miram' is not a method"),
        ("component: union", "component: both", "'union' or 'largest'"),
        ("seeds: [0, 1]", "seeds: []", "finetune.seeds"),
        ("batch: 8\n      epochs: 7", "batch: true\n      epochs: 7", "finetune.batch: True"),
        ("batch: 8\n      epochs: 7", "batch: 8.5\n      epochs: 7", "finetune.batch: 8.5"),
        ("rank: 128", "ranks: 128", "Unknown key methods.miram-linformer.options.ranks"),
        ("attention: full", "attention: sparse", "'linformer'"),
        ("attention: full", "attention: full\n    backend: fused", "attention full has no choice"),
        ("objective: mae", "objective: mae\n    attention: full", "Objective mae does not read attention"),
        ("objective: mocov3", "objective: mocov3\n    mask_ratio: 0.5", "Objective mocov3 does not read mask_ratio"),
        ("  mae:\n", "  3:\n", "methods.3 in"),
        ("  paper-448:", "  448:", "presets: ['demo', 'paper', 448"),
        ("landmarks: 16", "landmarks: 146", "miram-nystrom.options: landmarks 146 exceeds the 145 tokens"),
        ("residual_kernel: 33", "residual_kernel: 32", "residual_kernel 32 is even"),
        (
            "nystrom\n    backend: fused",
            "nystrom\n    backend: package",
            "pinv_init matrix is for backend fused, not package",
        ),
        (
            "linformer\n    backend: fused",
            "linformer\n    backend: package\n    recompute: true",
            "methods.miram-linformer: recompute true is for backend fused",
        ),
        ("width: 64, depth: 1, heads: 4", "width: 64, depth: 1, heads: 64", "a Performer needs heads of width 2"),
        ("width: 96, depth: 2, heads: 4", "width: 98, depth: 2, heads: 2", "encoder: 4 does not divide width 98"),
        ("width: 64, depth: 1, heads: 4", "width: 62, depth: 1, heads: 2", "decoder: 4 does not divide width 62"),
        ("objective: mocov3", "objective: mocov3\n    batch: 1", "methods.mocov3: batch 1 on 1 device(s); BatchNorm"),
        ("crop_scale_min: 0.08", "crop_scale_min: 8.0", "methods.mocov3.crop_scale_min"),
        ("side: 112", "side: 100", "not a multiple of encoder.patch"),
        ("epochs: 500", "epochs: 500\n      mask_ratio: 0.5", "occurs twice"),
        ("preset: demo", "preset: tiny", "demo, paper"),
        ("{side: 448}", "{sides: 448}", "Unknown key methods.miram-nystrom.sides"),
        ("side: 224, batch: 256}", "side: 220, batch: 256}", "side 220 is not a multiple"),
        ("  paper-448:", "  paper-448:\n    crops: {margin: 0.1}", "only highres, methods, encoders, pretrain"),
        ("workers: 2", "workers: [", "not valid YAML"),
        ("workers: 2", "workers: 2\n  workers: 3", "'workers' occurs twice"),
        ("zoom_min: 0.8", "zoom_min: 1.8", "zoom_min 1.8 exceeds zoom_max"),
        ("seeds: [0, 1]", "seeds: [0, 1, 0]", "names one twice"),
        ("strict: [1.0e-3]", "strict: [1.0e-3, 1.0e-3]", "finetune.lr.strict: [0.001, 0.001] names one twice"),
        ("strict: [1.0e-3]", "strict: []", "finetune.lr.strict"),
        ("strict: [1.0e-3], published", "strikt: [1.0e-3], published", "Unknown key finetune.lr.strikt"),
        ("  seeds: [0]", "  seeds: [3, 3]", "pretrain.seeds: [3, 3] names one twice"),
        ("  seeds: [0]", "  seeds: [3, 4, 5]", "pretrain.seeds: [3, 4, 5] are more than finetune.seeds"),
        ("  seeds: [0]", "  seed: 0", "It is called pretrain.seeds, a list, now."),
        ("    objective: mae", "    objective: mae\n    seed: 1", "It is called pretrain.seeds, a list, now."),
        ("  mixup: 0.0", "  mixup: 0.0\n  imagenet_init: null", "It is called encoders, where each row"),
        ("encoders: {}", "encoders: {mae: {timm: resnet50, weights: null}}", "trivial-grey, mae, mocov3"),
        ("encoders: {}", "encoders: {of-timm: {weights: null}}", "encoders.of-timm.timm is missing"),
        ("source: tcia #", "source: images #", "[label] is only for source images"),
        ("from: films #", "from: archives #", "crops.from: 'archives'"),
        ("doubtful: keep", "doubtful: maybe", "'keep' or 'set_aside'"),
        ("tasks: [pathology_4class]", "tasks: [label]", "[label] is only for source images"),
        ("protocols: [strict, published]", "protocols: [strict, leaky]", "splits.protocols.1: 'leaky'"),
        ("protocols: [strict, published]", "protocols: [strict, paper]", "It is called published now"),
        ("modes: [finetune, linear]", "modes: [full, linear]", "It is called finetune now"),
        ("tasks: [pathology_4class]", "tasks: [birads]", "finetune.tasks.0: 'birads'"),
        ("accumulate: 1\n      epochs: 8", "accumulate: 3\n      epochs: 8", "not a multiple of accumulate 3"),
        ("mask_ratio: 0.75", "mask_ratio: 0.999", "keeps 0 of 36 patches"),
        ("width: 96, depth: 2, heads: 4", "width: 96, depth: 2, heads: 5", "heads 5 do not divide width 96"),
        ("      epochs: 7\n      warmup_epochs: 2", "      epochs: 1\n      warmup_epochs: 2", "exceeds epochs 1"),
        ("csv_url: embedded", "csv_url: https://example.org/", "both `embedded`"),
        (
            "    archive: null",
            "    archive: {patients: 40, films_rows: 416, films_columns: 288, seed: 7}",
            "only in demo",
        ),
        ("source: tcia #", "source: local #", "source: local in"),
        *(("name: my-images", f"name: {name}", f"sources.images.name: {name!r} in") for name in TAKEN),
        ("name: my-images", "name: 2024", "sources.images.name: 2024 in"),
        ("    name: my-images", "    #", "sources.images.name is missing"),
        ("fallback: null", "fallback: idc", "has no series of an `embedded` archive"),
        ("fallback: null", "fallback: local", "sources.tcia.fallback: 'local'"),
    ],
)
def test_a_slip_is_named_with_its_key_and_what_is_allowed(tmp_path, old, new, named):
    if named is None:
        assert load_edited(tmp_path, old, new).pretrain.mask_ratio == 0.75
        return
    with pytest.raises(ParameterError) as fault:
        load_edited(tmp_path, old, new)
    assert named in str(fault.value)


def test_a_real_archive_is_for_the_presets_whose_results_are_called_real(tmp_path):
    paper = load_edited(tmp_path, "source: tcia #", "source: idc #", "paper")
    assert (paper.source, paper.name, paper.title) == ("idc", "paper", "paper") and not params.is_embedded(paper)
    assert params.is_embedded(params.load(ROOT / "params.yaml"))


def test_own_images_have_folders_of_their_own_whatever_the_preset(tmp_path):
    file = tmp_path / "params.yaml"
    text = SHIPPED.replace("source: tcia #", "source: images #").replace("tasks: [pathology_4class", "tasks: [label")
    file.write_text(re.sub(r"(tasks: \[label).*\]", r"\1]", text))
    demo, large = (params.load(file, preset) for preset in ("demo", "paper-448"))
    for chosen in (demo, large):
        assert chosen.name == "my-images"
        places = [place(chosen.name) for place in (layout.data, layout.runs, layout.results)]
        assert places == [Path(kind, "my-images") for kind in ("data", "runs", "results")]
    assert layout.log("images", demo.name) == Path("logs/my-images/images.log")
    assert subject(demo.title) == "my-images: own images, small models of preset demo"
    assert subject(large.title) == "my-images: own images, models of full size, 224 -> 448 px of preset paper-448"
    assert [preset_of(chosen.title) for chosen in (demo, large)] == ["demo", "paper-448"]
    assert "name" not in params.stage_values(demo, "images")["images"]  # it decides no result


def test_a_slip_stops_the_command_with_exit_code_2_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(SHIPPED.replace("strict: [1.0e-3]", "strict: [1e-3]"))
    assert main(["crops"]) == 2
    assert "1.0e-3" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def place(stage, method):
    known = {
        "pretrain": ("strict", method, 0),
        "finetune": layout.Cell("strict", "pathology_4class", "finetune", method, 0),
    }
    known["probe"] = layout.Cell("strict", "pathology_4class", "linear", method, 0)
    return known.get(stage, ("strict",) if stage == "splits" else ())


def test_a_cell_is_a_job_and_without_training_there_is_one_seed(tmp_path):
    chosen = load_edited(tmp_path, "modes: [finetune, linear]", "modes: [finetune, linear, knn]")
    cells = params.cells(chosen)
    per_mode = {"finetune": 2, "linear": 1, "knn": 1}
    assert len(set(cells)) == len(cells) == 2 * 7 * sum(per_mode.values())
    for mode, seeds in per_mode.items():
        assert {cell.seed for cell in cells if cell.mode == mode} == set(range(seeds))
    assert cells[0] == layout.Cell("strict", "pathology_4class", "finetune", "from-scratch", 0)
    assert {cell.task for cell in params.cells(params.load(ROOT / "params.yaml", "paper"))} == set(CLASSES)


def test_the_first_seed_chooses_among_learning_rates_where_there_are_several():
    paper, demo = (params.load(ROOT / "params.yaml", name) for name in ("paper", "demo"))
    first, later = (layout.Cell("strict", "pathology", "finetune", "mae", seed) for seed in (0, 3))
    assert params.chooser(paper, later) == first and params.chooser(paper, first) is None
    assert params.chooser(paper, later._replace(mode="linear")) is None
    assert params.chooser(paper, later._replace(protocol="published")) is None
    assert params.chooser(demo, later) is None
    assert params.tuning_of(paper, later).lr == [1e-5, 1e-4] == params.tuning_of(paper, first).lr
    assert params.tuning_of(paper, later._replace(protocol="published")).lr == [1e-5]


def test_the_kth_fine_tuning_starts_from_the_kth_pre_training_and_after_the_last_from_the_first(tmp_path):
    text = SHIPPED.replace("  seeds: [0]\n", "  seeds: [7, 3]\n").replace("seeds: [0, 1]\n", "seeds: [4, 0, 1]\n")
    (tmp_path / "params.yaml").write_text(text)
    chosen = params.load(tmp_path / "params.yaml")
    mae = [cell for cell in params.cells(chosen) if (cell.protocol, cell.method) == ("strict", "mae")]
    starts = {(cell.mode, cell.seed): params.pretrain_seed(chosen, cell) for cell in mae}
    probes = {("linear", 4): 7, ("linear", 0): 3}
    assert starts == {("finetune", 4): 7, ("finetune", 0): 3, ("finetune", 1): 7} | probes
    assert all(values(chosen, cell)["pretrain_seed"] == starts[cell.mode, cell.seed] for cell in mae)
    scratch = next(cell for cell in params.cells(chosen) if cell.method == layout.FROM_SCRATCH)
    assert values(chosen, scratch)["pretrain_seed"] is None
    trained = [place for stage, place in params.jobs(chosen) if stage.name == "pretrain"]
    assert [seed for *place, seed in trained if place == ["strict", "mae"]] == [7, 3]
    seeds = {params.stage_values(chosen, "pretrain", "strict", "mae", seed)["seed"] for seed in ("7", 3)}
    assert seeds == {7, 3} and params.recipe_of(chosen, "mae").seed == 7


def test_encoders_of_others_are_rows_with_a_network_a_file_and_a_side_of_their_own(tmp_path):
    rows = "encoders: {theirs: {timm: resnet50, weights: a.pth}, fresh: {timm: test_vit, weights: null, side: 64}}"
    chosen = load_edited(tmp_path, "encoders: {}", rows)
    cells = {cell.method: cell for cell in params.cells(chosen)}
    assert list(cells)[:4] == ["from-scratch", "theirs", "fresh", "mae"]
    told = {name: values(chosen, cells[name]) for name in ("theirs", "fresh")}
    assert [told["theirs"][name] for name in ("side", "pool", "pretrain_seed")] == [48, "own", None]
    assert told["theirs"]["encoder"] == {"timm": "resnet50", "weights": "a.pth"} and told["fresh"]["side"] == 64
    tuned = values(chosen, cells["theirs"]._replace(mode="finetune"))
    assert tuned["head_init_std"] == chosen.finetune.head_init_std_mocov3
    kinds = params.kinds_of(chosen)
    assert kinds["theirs"] == kinds["fresh"] == layout.TIMM and kinds["mae"] == "mae"
    conditions = params.stage_values(chosen, "evaluate")["conditions"]
    assert differs_in("fresh", "mae", conditions) == "side (64 against 48)" and not differs_in(
        "theirs", "mae", conditions
    )
    assert params.given_paths(chosen) == {"encoders.theirs.weights": Path("a.pth")}
    assert params.starts_of(chosen)["theirs"] == "not pre-trained here: resnet50 of timm, a.pth"


def test_a_mode_depends_on_its_own_values_only(tmp_path):
    before = params.load(ROOT / "params.yaml")
    after = load_edited(tmp_path, "linear_c: [1.0e-4, 1.0e-3, 1.0e-2, 0.1, 1.0, 10.0]", "linear_c: [1.0e-4]")
    changed = [cell.mode for cell in params.cells(before) if values(before, cell) != values(after, cell)]
    assert set(changed) == {"linear"}


def test_the_networks_of_the_first_seed_alone_are_kept_whichever_that_is(tmp_path):
    for seeds in ([0, 1], [1, 0]):
        chosen = load_edited(tmp_path, "seeds: [0, 1]", f"seeds: {seeds}")
        full = [cell for cell in params.cells(chosen) if cell.mode == "finetune"]
        assert params.kept(chosen) == [cell for cell in full if values(chosen, cell)["keep_network"]]
        assert {cell.seed for cell in params.kept(chosen)} == set(seeds[:1])
        assert set(params.explained(chosen)) <= set(params.kept(chosen))
        as_text = full[0]._replace(seed=str(seeds[0]))  # a wildcard of the workflow
        assert values(chosen, as_text) == values(chosen, full[0])


def values(chosen, cell):
    return params.stage_values(chosen, "finetune" if cell.mode == "finetune" else "probe", *cell)


def test_a_method_overrides_pretraining_values_for_itself_alone():
    chosen = params.load(ROOT / "params.yaml", "paper")
    assert chosen.methods["miram-nystrom"].pretrain.side == 224
    assert chosen.methods["mae"].pretrain.side == chosen.pretrain.side == 112
    sides = {
        method: params.tuning_of(chosen, layout.Cell(*place("finetune", method))).side
        for method in ("miram-nystrom", "from-scratch")
    }
    assert sides == {"miram-nystrom": 224, "from-scratch": 112}
    assert chosen.methods["mocov3"].pretrain.weight_decay == 0.1


def test_a_stage_depends_on_its_own_values_only(tmp_path):
    before = params.load(ROOT / "params.yaml")
    after = load_edited(tmp_path, "drop_path: 0.1", "drop_path: 0.2")
    for stage in ("archive", "catalogue", "crops", "pack", "splits", "evaluate", "claims", "efficiency", "table"):
        assert params.stage_values(before, stage, *place(stage, "mae")) == params.stage_values(
            after, stage, *place(stage, "mae")
        )
    for method in before.methods:
        for stage in ("pretrain", "probe", "finetune"):
            own = place(stage, method)
            same = params.stage_values(before, stage, *own) == params.stage_values(after, stage, *own)
            assert same == (stage != "finetune")


def test_the_metrics_that_methods_may_be_compared_by_are_those_that_are_measured():
    assert get_args(Metric) == METRICS


def test_compiling_concerns_pretraining_alone(tmp_path):
    before, after = params.load(ROOT / "params.yaml"), load_edited(tmp_path, "compile: false", "compile: true")
    assert params.stage_values(after, "pretrain", "strict", "mae", 0)["compile"]
    for cell in params.cells(before):
        assert values(before, cell) == values(after, cell)


def test_how_to_transfer_changes_no_stage(tmp_path):
    before, after = params.load(ROOT / "params.yaml"), load_edited(tmp_path, "workers: 2", "workers: 8")
    assert params.stage_values(before, "crops") == params.stage_values(after, "crops")


@pytest.mark.parametrize("preset", params.PRESETS)
def test_the_record_of_a_training_holds_what_its_stage_is_given(preset):
    chosen = params.load(ROOT / "params.yaml", preset)
    for name in chosen.methods:
        values_of = params.stage_values(chosen, "pretrain", "strict", name, 0)
        assert of_values(Recipe, values_of) == params.recipe_of(chosen, name)
    for cell in params.kept(chosen):
        assert of_values(Tuning, params.stage_values(chosen, "finetune", *cell)) == params.tuning_of(chosen, cell)


def test_a_method_in_the_file_has_no_section_pretrain(tmp_path):
    with pytest.raises(ParameterError, match=r"Unknown key methods\.mae\.pretrain"):
        load_edited(tmp_path, "  mae:", "  mae:\n    pretrain: null")


@pytest.mark.parametrize("preset", [*params.PRESETS, "small.finetune"])
def test_a_preset_and_its_section_are_mappings(tmp_path, preset):
    document = yaml.safe_load(SHIPPED)
    if "." in preset:
        document["source"] = "images"
        for name in ("demo", "paper"):
            document["presets"][name]["finetune"]["tasks"] = ["label"]
        document["presets"]["small"]["finetune"] = None
    else:
        document["presets"][preset] = None
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ParameterError, match="finetune: None" if "." in preset else f"presets.{preset} is None"):
        params.load(tmp_path / "params.yaml")
