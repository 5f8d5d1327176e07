import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miram.train.schedule import half_cosine, warmup_cosine


def test_the_warm_up_is_linear_from_zero_and_the_cosine_ends_at_zero():
    values = warmup_cosine(1.0, 12, 4)
    assert values[:5].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert values[8] == pytest.approx(0.5)
    assert values[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))


def test_the_momentum_of_moco_rises_to_one():
    values = half_cosine(0.99, 1.0, 10)
    assert values[0] == pytest.approx(0.99) and values[5] == pytest.approx(0.995) and values[-1] < 1.0


@given(st.integers(1, 300), st.integers(0, 300))
def test_there_is_one_value_a_step_and_none_exceeds_the_peak(steps, warmup_steps):
    if warmup_steps > steps:
        with pytest.raises(ValueError, match=str(warmup_steps)):
            warmup_cosine(0.1, steps, warmup_steps)
        return
    values = warmup_cosine(0.1, steps, warmup_steps)
    assert len(values) == steps and values.min() >= 0 and values.max() <= 0.1
    assert (values[1 : warmup_steps + 1] > values[:warmup_steps][: len(values) - 1]).all()
