import math

import pytest
import torch

from miram.models.positions import sincos_2d


def test_the_class_token_has_no_position() -> None:
    assert torch.equal(sincos_2d(16, 3)[0], torch.zeros(16))


def test_the_first_half_encodes_the_column_and_the_second_the_row() -> None:
    positions = sincos_2d(8, 3)[1:].view(3, 3, 8)
    row, column = 1, 2
    expected = [f(p * w) for p in (column, row) for f in (math.sin, math.cos) for w in (1, 0.01)]
    torch.testing.assert_close(positions[row, column], torch.tensor(expected))


def test_every_place_has_a_position_of_its_own() -> None:
    assert len(torch.unique(sincos_2d(16, 14), dim=0)) == 1 + 14**2


def test_a_width_that_four_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 18"):
        sincos_2d(18, 2)
