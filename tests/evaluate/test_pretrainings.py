"""The variance of patients, pre-trainings and fine-tunings is known in these simulations, and so is the truth."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from miram.evaluate.differences import difference_rows
from miram.evaluate.pretrainings import OF_ONE, anew, extent, interval_anew, p_value_anew, sources, variance_rows
from miram.evaluate.scores import Answers
from miram.evaluate.statistics import interval, patient_resamples, training_margin, widened
from miram.evaluate.weighted import Measured

OPTIONS = {"specificity": 0.9, "threshold": 0.5, "bins": 10}
CHOICE = {"reference": "a", "compared": ["accuracy"], "confidence": 0.95, "power": 0.8, "min_draws_share": 0.9}
PATIENTS, EACH, RESAMPLES = 120, 3, 500
ALIKE, COMMON = 0.6, 0.8  # chance that a lesion is as hard as its patient's others, and as for all networks
ACCURACY = 0.65
OWNERS = np.repeat(np.arange(PATIENTS), EACH)


def network(right, weights, start):
    """A network that has these lesions right, in each draw of patients as well."""
    drawn = {"accuracy": right.astype(float) @ weights / weights.sum(axis=0)}
    answers = Answers(np.tile([True, False], (len(right), 1)), np.stack([right, ~right], 1) * 1.0, ("a", "b"), False)
    return Measured(answers, {"accuracy": right.mean()}, drawn, start)


def study(generator, starts, sd_pretraining, sd_finetuning, methods=("a",)):
    """(method, seed) -> its network on the same lesions, whose true accuracy is ACCURACY plus the luck of training."""
    weights = patient_resamples(OWNERS, resamples=RESAMPLES, seed=int(generator.integers(1 << 30)))
    size = len(OWNERS)
    of_patient = np.repeat(generator.random(PATIENTS), EACH)
    hard = np.where(generator.random(size) < ALIKE, of_patient, generator.random(size))
    found = {}
    for method in methods:
        luck = generator.normal(0, sd_pretraining, max(starts) + 1)
        for seed, start in enumerate(starts):
            own = np.where(generator.random(size) < COMMON, hard, generator.random(size))
            accuracy = ACCURACY + luck[start] + generator.normal(0, sd_finetuning)
            found[method, seed] = network(own < accuracy, weights, start)
    return found


def coverage(starts, sd_pretraining, simulations, seed=0):
    """How often the interval for the method, and the form for one pre-training, cover the true accuracy."""
    generator, hits = np.random.default_rng(seed), np.zeros(2)
    for _ in range(simulations):
        networks = list(study(generator, starts, sd_pretraining, 0.01).values())
        values = np.array([own.values["accuracy"] for own in networks])
        drawn = np.mean([own.drawn["accuracy"] for own in networks], axis=0)
        spread = training_margin(values.std(ddof=1), len(values), 0.95)
        old = widened(values.mean(), *interval(values.mean(), drawn, 0.95, 0.9), spread)
        new = interval_anew(values.mean(), drawn, [anew(networks, "accuracy")], 0.95, 0.9)
        hits += [low <= ACCURACY <= high for low, high in (new, old)]
    return hits / simulations


def rejections(starts, sd_pretraining, simulations, seed=0):
    """How often equal methods are told apart at 0.05, and how often the interval of their difference covers 0."""
    generator, hits = np.random.default_rng(seed), np.zeros(2)
    for number in range(simulations):
        found = study(generator, starts, sd_pretraining, 0.01, ("a", "b"))
        (row,) = difference_rows(
            found, list(found), OWNERS, resamples=RESAMPLES, seed=number, **CHOICE, options=OPTIONS
        )
        hits += row["p_value"] <= 0.05, row["corrected_low"] <= 0 <= row["corrected_high"]
    return hits / simulations


def several(values, starts, drawn=None):
    """Networks of these accuracies, whose draws of patients are all at the value unless given."""
    draws = np.repeat(np.array(values, dtype=float)[:, None], 4, axis=1) if drawn is None else np.asarray(drawn)
    pairs = zip(values, draws, starts, strict=True)
    return [Measured(None, {"accuracy": v}, {"accuracy": d}, start) for v, d, start in pairs]


def test_without_patients_the_interval_is_students_of_the_means_of_the_pre_trainings():
    networks = several([0.60, 0.62, 0.70, 0.72, 0.65, 0.67], [5, 5, 8, 8, 9, 9])
    means = np.array([0.61, 0.71, 0.66])
    part = anew(networks, "accuracy")
    assert (part.observed, part.beyond, part.freedom) == pytest.approx([means.var(ddof=1) / 3] * 2 + [2])
    drawn = 0.66 + np.array([-1e-9, 1e-9, -1e-9, 1e-9])  # next to nothing: draws that are all alike give no interval
    half = student.ppf(0.975, 2) * means.std(ddof=1) / np.sqrt(3)
    assert interval_anew(0.66, drawn, [part], 0.95, 0.9) == pytest.approx((0.66 - half, 0.66 + half))
    ratio = 0.66 / np.sqrt(means.var(ddof=1) / 3)
    assert p_value_anew(0.66, drawn, [part]) == pytest.approx(2 * student.sf(ratio, 2))


def test_what_the_draws_of_patients_hold_already_does_not_count_twice():
    drawn = [[0.5, 0.6, 0.7, 0.6], [0.7, 0.6, 0.5, 0.6], [0.6, 0.6, 0.6, 0.6]]
    part = anew(several([0.61, 0.59, 0.60], [0, 1, 2], drawn), "accuracy")
    assert part.observed == pytest.approx(0.0001 / 3) and part.beyond == 0.0


@pytest.mark.parametrize("start", [None, 3])
def test_networks_without_several_pre_trainings_vary_by_their_fine_tunings(start):
    assert anew(several([0.6, 0.7], [start, start]), "accuracy").observed == pytest.approx(0.005 / 2)
    assert anew(several([0.6], [start]), "accuracy") is None


def of_accuracies(weights, **methods):
    """(method, seed) -> its network; each method has pairs of accuracy and start."""
    return {
        (name, seed): network(np.arange(len(OWNERS)) % 100 < 100 * accuracy, weights, start)
        for name, own in methods.items()
        for seed, (accuracy, start) in enumerate(own)
    }


def test_another_methods_pre_trainings_do_not_change_what_is_known_of_a_pair():
    """A method whose second pre-training failed, as `so-far` shows it, beside one that has two."""
    weights = patient_resamples(OWNERS, resamples=50, seed=0)
    alone = of_accuracies(weights, a=[(0.6, 4), (0.7, 4)], scratch=[(0.5, None), (0.51, None)])
    beside = alone | of_accuracies(weights, twice=[(0.55, 0), (0.6, 1)])
    options = {**CHOICE, "resamples": 50, "seed": 0, "options": OPTIONS}
    (expected,) = difference_rows(alone, list(alone), OWNERS, **options)
    found, mixed = difference_rows(beside, list(beside), OWNERS, **options)
    same = ("difference", "low", "high", "p_value", "note", "pretrainings")
    assert [found[name] for name in same] == [expected[name] for name in same]
    assert found["corrected_low"] <= expected["corrected_low"] < 0 < expected["corrected_high"]
    assert (
        mixed["note"] == OF_ONE and mixed["corrected_low"] < 0 < mixed["corrected_high"]
    )  # 10 points, sd 1.4 and more


def test_the_extent_names_the_methods_that_were_pre_trained_once():
    rows = [("strict", "a", 0), ("strict", "a", 1), ("strict", "b", 0), ("strict", "c", None)]
    metrics = pd.DataFrame(rows, columns=["protocol", "method", "pretrain_seed"])
    said = extent(metrics)
    assert said.startswith("Each method was pre-trained between 1 and 2 times: ") and f"those of b are {OF_ONE}" in said
    more = pd.concat([metrics, pd.DataFrame([("strict", "b", 1), ("strict", "a", 2)], columns=metrics.columns)])
    assert extent(more).startswith("Each method was pre-trained between 2 and 3 times: ") and OF_ONE not in extent(more)


def test_pre_trainings_that_all_agree_say_nothing_of_another_one():
    weights = patient_resamples(OWNERS, resamples=50, seed=0)
    right = {"a": np.arange(len(OWNERS)) % 5 > 0, "b": np.arange(len(OWNERS)) % 4 > 0}
    found = {(name, seed): network(own, weights, seed) for name, own in right.items() for seed in (0, 1)}
    (row,) = difference_rows(found, list(found), OWNERS, resamples=50, seed=0, **CHOICE, options=OPTIONS)
    assert row["low"] < row["difference"] == pytest.approx(0.05) and np.isnan(row["corrected_low"])


def test_the_spread_of_a_run_is_told_by_source():
    found = sources([0.60, 0.62, 0.70, 0.72], [0, 0, 1, 1])
    assert found.finetuning == pytest.approx(np.sqrt(0.0002))
    assert found.pretraining == pytest.approx(np.sqrt(0.005 - 0.0002 / 2))
    assert np.isnan(sources([0.6, 0.7], [0, 0]).pretraining) and np.isnan(sources([0.6, 0.7], [0, 1]).finetuning)
    (row,) = variance_rows({("a", 0): several([0.6], [3])[0]})
    assert (row["seeds"], row["pretrainings"], row["note"]) == (1, 1, OF_ONE)


DESIGNS = {"three": (0, 1, 2, 0, 1), "five": (0, 1, 2, 3, 4)}  # the pre-training of each of five fine-tunings


@pytest.mark.slow
@pytest.mark.parametrize("sd_pretraining", [0.0, 0.02, 0.04])
@pytest.mark.parametrize("starts", DESIGNS.values(), ids=DESIGNS)
def test_intervals_for_the_method_cover_the_truth(starts, sd_pretraining):
    covered, _ = coverage(starts, sd_pretraining, 2000)
    assert 0.93 <= covered <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("sd_pretraining", [0.0, 0.02, 0.04])
@pytest.mark.parametrize("starts", DESIGNS.values(), ids=DESIGNS)
def test_equal_methods_are_told_apart_no_more_often_than_the_level_says(starts, sd_pretraining):
    told, covered = rejections(starts, sd_pretraining, 1000)
    assert told <= 0.06
    assert covered >= 0.93


@pytest.mark.slow
def test_the_form_for_one_pre_training_does_not_cover_the_method():
    assert coverage((0, 0, 0, 0, 0), 0.04, 1000)[1] < 0.85
