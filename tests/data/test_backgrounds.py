import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from miram.data.backgrounds import sample_squares
from miram.data.breast import Areas
from miram.data.geometry import Box

boxes = st.tuples(st.integers(-20, 90), st.integers(-20, 90), st.integers(1, 40), st.integers(1, 40)).map(
    lambda t: Box(t[0], t[1], t[0] + t[2], t[1] + t[3])
)


def pixels_of(box):
    return slice(box.y0, box.y1), slice(box.x0, box.x1)


@given(
    shape=st.tuples(st.integers(10, 90), st.integers(10, 90)),
    step=st.integers(1, 7),
    breast=boxes,
    avoid=st.lists(boxes, max_size=3),
    sides=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_squares_lie_in_the_film_and_the_breast_apart_from_lesions_and_each_other(
    shape, step, breast, avoid, sides, seed
):
    film = np.zeros(shape, np.uint8)
    inside = breast.within(*shape)
    film[inside.y0 : inside.y1, inside.x0 : inside.x1] = 1
    areas = Areas(film[::step, ::step], step)
    found = sample_squares(areas, shape, avoid, sides, 4, np.random.default_rng(seed))
    assert found == sample_squares(areas, shape, avoid, sides, 4, np.random.default_rng(seed))
    taken = np.zeros(shape, bool)
    for box in avoid:
        taken[pixels_of(box.within(*shape))] = True
    for square in found:
        assert square.shape in {(side, side) for side in sides} and square.within(*shape) == square
        assert areas.of(square).all()
        assert not taken[pixels_of(square)].any()
        taken[pixels_of(square)] = True


def test_a_square_is_found_wherever_one_fits():
    film = np.zeros((40, 40), np.uint8)
    film[7:17, 21:31] = 1
    assert sample_squares(Areas(film, 1), film.shape, [], [10], 3, np.random.default_rng(0)) == [Box(7, 21, 17, 31)]


def test_places_differ_between_seeds():
    areas = Areas(np.ones((50, 50), np.uint8), 4)
    found = {sample_squares(areas, (200, 200), [], [20], 1, np.random.default_rng(seed))[0] for seed in range(9)}
    assert len(found) > 5


def test_no_square_reaches_over_the_end_of_a_film_that_steps_do_not_divide():
    found = sample_squares(Areas(np.ones((3, 3)), 4), (10, 10), [], [4], 9, np.random.default_rng(0))
    assert sorted(found) == [Box(y, x, y + 4, x + 4) for y in (0, 4) for x in (0, 4)]
