import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from miram.evaluate.differences import difference_rows
from miram.evaluate.pretrainings import p_value_anew
from miram.evaluate.scores import Answers
from miram.evaluate.statistics import (
    another_run_margin,
    classes_of_one_patient,
    design_effect,
    draws_note,
    holm,
    interval,
    lesions_needed_paired,
    lesions_needed_unpaired,
    patient_exchanges,
    patient_resamples,
    permutation_p_value,
    training_margin,
    widened,
)
from miram.evaluate.weighted import Measured, weighted_scores

OPTIONS = {"specificity": 0.9, "threshold": 0.5, "bins": 10}
ALIKE = (
    0.7  # chance that a lesion takes its patient's outcome in place of its own; correlation in a patient: its square
)


def clustered(generator, patients, lesions_each, shares):
    """Outcomes 0, 1, … with these shares of all, alike within a patient; and the patients."""
    own = generator.choice(len(shares), p=shares, size=(patients, lesions_each))
    common = generator.choice(len(shares), p=shares, size=(patients, 1))
    outcomes = np.where(generator.random(own.shape) < ALIKE, common, own)
    return outcomes.ravel(), np.repeat(np.arange(patients), lesions_each)


def answers(right):
    """Of a task of two classes, the first being true."""
    right = np.asarray(right, dtype=bool)
    return Answers(np.tile([True, False], (len(right), 1)), np.stack([right, ~right], axis=1) * 1.0, ("a", "b"), False)


def accuracies(given, weights):
    return weighted_scores(given, weights, ["accuracy"], **OPTIONS)["accuracy"]


def compared(outcomes, patients, seed, resamples):
    """The row of accuracy: outcome 1 is the reference's gain, 2 its loss, 0 both right, 3 both wrong."""
    right = {("reference", 0): outcomes <= 1, ("other", 0): outcomes % 2 == 0}
    return rows_of(right, patients, resamples, seed)["other"]


def rows_of(right, patients, resamples=200, seed=9):
    """The rows of accuracy by method, where (method, seed) -> which lesions are right."""
    weights = patient_resamples(patients, resamples=resamples, seed=seed)
    found = {}
    for run, outcome in right.items():
        given = answers(outcome)
        found[run] = Measured(given, {"accuracy": outcome.mean()}, {"accuracy": accuracies(given, weights)})
    choice = {
        "reference": "reference",
        "compared": ["accuracy"],
        "confidence": 0.95,
        "power": 0.8,
        "min_draws_share": 0.9,
    }
    rows = difference_rows(found, list(found), patients, resamples=resamples, seed=seed, **choice, options=OPTIONS)
    return {row["second"]: row for row in rows}


def by_chance(shares, seeds):
    """Which of 120 lesions each method has right, with a share of its own, in each seed."""
    generator = np.random.default_rng(8)
    return {(method, seed): generator.random(120) < share for method, share in shares.items() for seed in range(seeds)}


TWO_EACH = np.repeat(np.arange(60), 2)  # patients of 120 lesions
THREE = {"reference": 0.75, "near": 0.7, "far": 0.5}  # methods and their accuracies


def coverage(simulations, seed, accuracy=0.7):
    """How often the intervals from patients and from lesions cover the accuracy that the simulation has."""
    generator, hits = np.random.default_rng(seed), np.zeros(2)
    for number in range(simulations):
        right, patients = clustered(generator, 150, 3, [1 - accuracy, accuracy])
        for place, units in enumerate((patients, np.arange(len(patients)))):
            drawn = accuracies(answers(right), patient_resamples(units, resamples=400, seed=number))
            low, high = interval(right.mean(), drawn, 0.95, 0.9)
            hits[place] += low <= accuracy <= high
    return hits / simulations


def rejections(simulations, seed, patients, lesions_each, gain, loss):
    """How often the paired test finds a difference at 0.05."""
    generator, shares, found = np.random.default_rng(seed), [0.4, gain, loss, 0.6 - gain - loss], 0
    for number in range(simulations):
        outcomes, owners = clustered(generator, patients, lesions_each, shares)
        found += compared(outcomes, owners, number, resamples=300)["p_value"] <= 0.05
    return found / simulations


def test_intervals_over_patients_cover_the_truth_and_those_over_lesions_do_not():
    over_patients, over_lesions = coverage(400, seed=0)
    assert 0.93 <= over_patients <= 0.97
    assert over_lesions < 0.90


def test_the_paired_test_holds_its_level():
    assert rejections(500, seed=1, patients=100, lesions_each=2, gain=0.1, loss=0.1) <= 0.06


def test_the_paired_test_has_the_power_that_the_number_of_lesions_promises():
    effect = 1 + ALIKE**2  # two lesions a patient
    needed = lesions_needed_paired(0.08, 0.24, confidence=0.95, power=0.8, design_effect=effect)
    power = rejections(400, seed=2, patients=round(needed / 2), lesions_each=2, gain=0.16, loss=0.08)
    assert power == pytest.approx(0.8, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [0.55, 0.61, 0.85])
def test_coverage_with_many_simulations(accuracy):
    over_patients, over_lesions = coverage(2000, seed=10, accuracy=accuracy)
    assert 0.93 <= over_patients <= 0.97
    assert over_lesions < 0.90


@pytest.mark.slow
@pytest.mark.parametrize(("lesions_each", "gain", "loss"), [(1, 0.2, 0.1), (2, 0.12, 0.07), (4, 0.15, 0.05)])
def test_level_and_power_with_many_simulations(lesions_each, gain, loss):
    even = (gain + loss) / 2
    assert rejections(2000, seed=11, patients=150, lesions_each=lesions_each, gain=even, loss=even) <= 0.06
    effect = 1 + (lesions_each - 1) * ALIKE**2
    needed = lesions_needed_paired(gain - loss, gain + loss, confidence=0.95, power=0.8, design_effect=effect)
    power = rejections(1000, 12, round(needed / lesions_each), lesions_each, gain, loss)
    assert power == pytest.approx(0.8, abs=0.05)


def test_lesions_of_a_patient_are_drawn_and_exchanged_together():
    patients = ["b", "a", "b", "c", "a"]
    for weights in (function(patients, resamples=50, seed=3) for function in (patient_resamples, patient_exchanges)):
        assert weights.shape == (5, 50)
        assert (weights[0] == weights[2]).all()
        assert (weights[1] == weights[4]).all()
        assert len(np.unique(weights, axis=1).T) > 3
    assert set(patient_resamples(patients, resamples=50, seed=3)[[0, 1, 3]].sum(axis=0)) == {3.0}


def test_the_same_seed_gives_the_same_draws():
    first, again, other = (patient_resamples(range(9), resamples=20, seed=seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_an_interval_lies_about_its_value_and_skips_undefined_draws():
    drawn = np.concatenate([np.linspace(0.4, 0.6, 1001), [np.nan] * 10])
    assert interval(0.3, drawn, 0.9, 0.9) == pytest.approx((0.21, 0.39))
    assert np.isnan(interval(math.nan, drawn, 0.9, 0.9)).all()
    assert np.isnan(interval(0.3, np.full(3, np.nan), 0.9, 0.9)).all()


def test_draws_that_are_nearly_all_alike_leave_no_interval_and_the_note_says_so():
    for drawn in (np.full(100, 0.25), np.array([1 / 3, *[0.25] * 98, np.nan])):
        assert np.isnan(interval(0.25, drawn, 0.95, 0.9)).all()
        told = "no interval where the value is the same in at least 95% of the draws of patients"
        assert draws_note(drawn, "macro_ap", 0.95, 0.9) == told
    assert math.isnan(p_value_anew(0.1, np.full(100, 0.1), []))


def test_the_permutation_test_counts_the_observed_difference_and_ties():
    permuted = np.array([0.2, -0.2 + 1e-16, 0.1, 0.0])
    assert permutation_p_value(0.2, permuted) == 3 / 5
    assert permutation_p_value(-0.3, permuted) == 1 / 5
    assert math.isnan(permutation_p_value(math.nan, permuted))


def test_with_one_lesion_a_patient_the_test_of_accuracy_is_mcnemars_exact_test():
    outcomes = np.repeat([0, 1, 2, 3], [40, 18, 7, 35])
    row = compared(outcomes, np.arange(100), seed=4, resamples=20_000)
    assert row["p_value"] == pytest.approx(binomtest(18, 25).pvalue, abs=0.003)
    assert row["difference"] == pytest.approx(0.11)


def test_holm_adjusts_step_by_step_and_leaves_out_what_was_not_tested():
    adjusted, divisors = holm([0.01, 0.04, math.nan, 0.03, 0.005])
    np.testing.assert_allclose(adjusted, [0.03, 0.06, math.nan, 0.06, 0.02])
    np.testing.assert_allclose(divisors, [3, 1, math.nan, 2, 4])
    assert holm([0.9, 0.8])[0].tolist() == [1.0, 1.0]
    assert [len(part) for part in holm([])] == [0, 0]


def test_two_independent_errors_widen_an_interval_so_that_it_covers():
    generator, seeds, covered = np.random.default_rng(5), 5, 0
    for _ in range(3000):
        runs = generator.normal(0, 0.02) + generator.normal(0, 0.03, seeds)  # patients are common, trainings are not
        value = runs.mean()
        margin = training_margin(runs.std(ddof=1), seeds, 0.95)
        low, high = widened(value, value - 1.96 * 0.02, value + 1.96 * 0.02, margin)
        covered += low <= 0 <= high
    assert 0.94 <= covered / 3000 <= 0.98
    assert math.isnan(training_margin(math.nan, 1, 0.95))
    assert widened(0.5, 0.47, 0.54, 0.0) == pytest.approx((0.47, 0.54))


def test_the_margins_of_training_are_students():
    assert training_margin(0.02, 5, 0.95) == pytest.approx(2.776 * 0.02 / math.sqrt(5), rel=1e-3)
    assert another_run_margin(0.02, 5, 0.95) == pytest.approx(2.776 * 0.02 * math.sqrt(1 + 1 / 5), rel=1e-3)
    assert training_margin(0.02, 2, 0.95) == pytest.approx(12.706 * 0.02 / math.sqrt(2), rel=1e-3)
    assert math.isnan(training_margin(0.0, 2, 0.95)) and math.isnan(another_run_margin(0.0, 2, 0.95))


def test_a_difference_is_the_mean_over_seeds_in_each_draw_and_in_each_exchange():
    right = by_chance(THREE, seeds=3)
    weights = patient_resamples(TWO_EACH, resamples=200, seed=9)
    signs = 1 - 2 * patient_exchanges(TWO_EACH, resamples=200, seed=9)
    for other, row in rows_of(right, TWO_EACH).items():
        by_seed = np.array([right["reference", seed].astype(float) - right[other, seed] for seed in range(3)])
        gains = by_seed.mean(axis=0)
        assert row["difference"] == pytest.approx(gains.mean())
        assert row["sd"] == pytest.approx(by_seed.mean(axis=1).std(ddof=1))
        drawn = gains @ weights / weights.sum(axis=0)
        assert (row["low"], row["high"]) == pytest.approx(interval(gains.mean(), drawn, 0.95, 0.9))
        assert row["p_value"] == permutation_p_value(gains.mean(), (signs * gains[:, None]).mean(axis=0))
        assert row["disagreement"] == pytest.approx((gains**2).mean())
        assert row["design_effect"] == pytest.approx(design_effect(gains, TWO_EACH))


def test_methods_are_compared_at_the_level_of_holms_step_and_widened_by_the_spread_of_training():
    right, weights = by_chance(THREE, seeds=3), patient_resamples(TWO_EACH, resamples=200, seed=9)
    rows = rows_of(right, TWO_EACH)
    adjusted, divisors = holm([row["p_value"] for row in rows.values()])
    assert sorted(divisors) == [1, 2]
    for (other, row), p_holm, divisor in zip(rows.items(), adjusted, divisors, strict=True):
        gains = np.mean([right["reference", seed].astype(float) - right[other, seed] for seed in range(3)], axis=0)
        drawn, confidence = gains @ weights / weights.sum(axis=0), 1 - 0.05 / divisor
        limits = interval(gains.mean(), drawn, confidence, 0.9)
        expected = widened(gains.mean(), *limits, training_margin(row["sd"], 3, confidence))
        assert (row["corrected_low"], row["corrected_high"]) == pytest.approx(expected)
        assert row["p_holm"] == p_holm


def test_what_few_seeds_leave_open_is_cut_at_what_is_possible_and_the_same_twice_tells_nothing():
    right, first_six = by_chance({"reference": 0.8, "varied": 0.6}, seeds=2), np.arange(120) < 6
    right["varied", 1] = ~right["varied", 0]
    for seed in (0, 1):
        right["reference", seed] |= first_six
        right["alike", seed] = right["reference", seed] & ~first_six
    rows = rows_of(right, TWO_EACH)
    assert (rows["varied"]["corrected_low"], rows["varied"]["corrected_high"]) == (-1, 1)
    assert rows["alike"]["difference"] == pytest.approx(0.05) and rows["alike"]["low"] > -1
    assert np.isnan([rows["alike"]["corrected_low"], rows["alike"]["corrected_high"]]).all()


def test_the_design_effect_is_that_of_equal_clusters():
    generator = np.random.default_rng(6)
    outcomes, patients = clustered(generator, 20_000, 4, [0.3, 0.7])
    assert design_effect(outcomes, patients) == pytest.approx(1 + 3 * ALIKE**2, rel=0.03)
    assert design_effect(outcomes, np.arange(len(outcomes))) == pytest.approx(1)
    assert design_effect(np.ones(5), [1, 1, 2, 2, 2]) == 1


def test_lesions_needed_are_those_of_the_books():
    plain = {"confidence": 0.95, "power": 0.8, "design_effect": 1.0}
    assert lesions_needed_unpaired(0.6, 0.7, **plain) == 356
    assert lesions_needed_unpaired(0.7, 0.6, **{**plain, "design_effect": 2.0}) == 712
    # two-sided 0.05, power 0.8, all lesions in disagreement or none beyond the difference
    assert lesions_needed_paired(0.1, 0.1, **plain) == math.ceil(
        (norm.ppf(0.975) * math.sqrt(0.1) + norm.ppf(0.8) * 0.3) ** 2 / 0.01
    )
    assert lesions_needed_paired(-0.1, 0.3, **plain) == lesions_needed_paired(0.1, 0.3, **plain) == 234
    assert lesions_needed_paired(0.0, 0.3, **plain) is lesions_needed_unpaired(0.5, 0.5, **plain) is None


def two_positives_of_one_patient():
    """Truth, a score that is right but for 2 of 58 negatives, and patients: 60 lesions, two of each of 30 patients."""
    positive = np.arange(60) < 2
    score = np.where(positive, 0.8, 0.3)
    score[[1, 10, 11]] = 0.6, 0.7, 0.75
    return positive, score, np.repeat(np.arange(30), 2)


def test_draws_without_a_value_are_counted_and_too_many_of_them_leave_no_interval():
    positive, score, patients = two_positives_of_one_patient()
    given = Answers(np.stack([~positive, positive], 1), np.stack([1 - score, score], 1), ("BENIGN", "MALIGNANT"), False)
    weights = patient_resamples(patients, resamples=2000, seed=0)
    drawn = weighted_scores(given, weights, ["macro_auc"], **OPTIONS)["macro_auc"]
    missing = int((weights[0] == 0).sum())  # draws without the patient of both positives, about 1 / e of all
    assert np.isnan(drawn).sum() == missing and 600 < missing < 800
    assert np.isnan(interval(0.97, drawn, 0.95, 0.9)).all()
    assert (
        draws_note(drawn, "macro_auc", 0.95, 0.9)
        == f"no interval: {missing} of 2000 draws of patients have no macro_auc"
    )
    low, high = interval(0.97, drawn, 0.95, 0.5)
    assert low < 0.97 < high
    assert draws_note(drawn, "macro_auc", 0.95, 0.5) == f"{missing} of 2000 draws of patients have no macro_auc"
    assert draws_note(drawn[~np.isnan(drawn)], "macro_auc", 0.95, 0.9) == ""
    assert draws_note(np.empty(0), "macro_auc", 0.95, 0.9) == "no interval: all test lesions are of one patient"


def test_a_class_that_rests_on_one_patient_is_found():
    truth = np.array([[True, False, False], [True, False, False], [False, True, False], [False, True, False]])
    assert classes_of_one_patient(truth, ["a", "b", "c", "c"], ("x", "y", "z")) == ["y"]


def test_a_difference_without_enough_draws_has_a_value_and_a_note_and_no_interval():
    positive, score, patients = two_positives_of_one_patient()
    truth = np.stack([~positive, positive], 1)
    weights, found = patient_resamples(patients, resamples=200, seed=9), {}
    for run, own in {("reference", 0): score, ("other", 0): np.roll(score, 7)}.items():
        given = Answers(truth, np.stack([1 - own, own], 1), ("BENIGN", "MALIGNANT"), False)
        drawn = weighted_scores(given, weights, ["macro_auc"], **OPTIONS)
        found[run] = Measured(
            given,
            {"macro_auc": weighted_scores(given, np.ones((60, 1)), ["macro_auc"], **OPTIONS)["macro_auc"][0]},
            drawn,
        )
    choice = {"reference": "reference", "compared": ["macro_auc"], "confidence": 0.95, "power": 0.8}
    (row,) = difference_rows(
        found, list(found), patients, resamples=200, seed=9, **choice, min_draws_share=0.9, options=OPTIONS
    )
    assert row["difference"] > 0 and row["p_value"] < 1
    assert np.isnan([row[name] for name in ("low", "high", "corrected_low", "corrected_high")]).all()
    assert row["note"].startswith("no interval: ") and row["note"].endswith(
        "of 200 draws of patients have no macro_auc"
    )
