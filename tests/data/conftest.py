from collections.abc import Iterator
from functools import cache

import pytest

from miram.phantom import archive as phantom


@pytest.fixture(scope="session", autouse=True)
def _tissue_is_decoded_once() -> Iterator[None]:
    """It takes 2 s, and is the same for every phantom archive of a size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "load_breasts", cache(phantom.load_breasts))
        yield
