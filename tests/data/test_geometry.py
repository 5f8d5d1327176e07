import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_archive import mask_of

from miram.data.geometry import Box, bounding_box, cut_window, fit_mask, select_component, window_around

boxes = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(1, 300), st.integers(1, 300)).map(
    lambda t: Box(t[0], t[1], t[0] + t[2], t[1] + t[3])
)
windows = st.tuples(st.integers(-300, 700), st.integers(-300, 700), st.integers(1, 300), st.integers(1, 300)).map(
    lambda t: Box(t[0], t[1], t[0] + t[2], t[1] + t[3])
)
films = st.tuples(st.integers(1, 400), st.integers(1, 400)).map(
    lambda shape: np.arange(1, 1 + shape[0] * shape[1], dtype=np.uint32).reshape(shape)
)
rules = st.fixed_dictionaries(
    {"shape": st.sampled_from(["square", "tight"]), "margin": st.floats(0, 3), "side_min": st.integers(1, 400)}
)


@given(boxes)
def test_as_the_paper_cuts_the_side_is_the_longer_side_of_the_box(box):
    window = window_around(box, shape="square", margin=0.0, side_min=1)
    assert window.shape == (max(box.shape), max(box.shape))


@given(boxes)
def test_a_tight_window_without_margin_is_the_box(box):
    assert window_around(box, shape="tight", margin=0.0, side_min=1) == box


@given(boxes, rules)
def test_a_window_holds_its_box_and_keeps_its_centre_to_half_a_pixel(box, rule):
    window = window_around(box, **rule)
    for axis in (0, 1):
        start, end = window[axis], window[axis + 2]
        assert start <= box[axis] and end >= box[axis + 2]
        assert abs((start + end) / 2 - (box[axis] + box[axis + 2]) / 2) <= 0.5


@given(boxes, rules)
def test_a_side_is_its_length_and_the_margins_but_never_below_the_smallest_allowed(box, rule):
    longer = max(box.shape)
    own = {"square": (longer, longer), "tight": box.shape}[rule["shape"]]
    for side, length in zip(window_around(box, **rule).shape, own, strict=True):
        assert side >= rule["side_min"]
        assert side == rule["side_min"] or abs(side - (length + 2 * rule["margin"] * longer)) <= 1


@given(films, windows)
def test_a_crop_is_the_film_inside_it_and_zero_only_outside(film, window):
    crop = cut_window(film, window)
    assert crop.shape == window.shape and crop.dtype == film.dtype
    rows, columns = np.indices(crop.shape)
    rows, columns = rows + window.y0, columns + window.x0
    inside = (rows >= 0) & (rows < film.shape[0]) & (columns >= 0) & (columns < film.shape[1])
    assert np.array_equal(crop[inside], film[rows[inside], columns[inside]])  # the films hold no zero
    assert not crop[~inside].any()
    assert np.prod(window.within(*film.shape).shape) == inside.sum()


@given(boxes)
def test_the_box_of_a_filled_box_is_that_box(box):
    mask = np.zeros((700, 700), bool)
    mask[box.y0 : box.y1, box.x0 : box.x1] = True
    assert bounding_box(mask) == box


def test_an_empty_mask_has_no_box():
    with pytest.raises(ValueError, match="empty"):
        bounding_box(np.zeros((3, 3), bool))


def test_components_are_joined_or_the_largest_is_taken():
    mask = mask_of((30, 30), (1, 1, 4, 4), (10, 10, 20, 20), (20, 20, 21, 21)) > 0  # the last touches by a corner
    whole, count = select_component(mask, "union")
    assert count == 2 and np.array_equal(whole, mask)
    largest, _ = select_component(mask, "largest")
    assert bounding_box(largest) == Box(10, 10, 21, 21)


@given(boxes)
def test_a_rescanned_mask_comes_back_to_where_it_was_drawn(box):
    rows, columns = 610, 620
    mask = np.zeros((rows, columns), bool)
    mask[box.y0 : box.y1, box.x0 : box.x1] = True
    small = fit_mask(mask, round(0.87 * rows), round(0.87 * columns))
    if small.any():
        found = bounding_box(fit_mask(small, rows, columns))
        assert np.abs(np.array(found) - np.array(box)).max() <= 2
