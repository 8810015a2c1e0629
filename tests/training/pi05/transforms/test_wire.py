"""Values from the wire: what is no array is said so before numpy makes something large of it."""

from __future__ import annotations

import numpy as np
import pytest

from policy_protocol.errors import InvalidObservation
from training.pi05.transforms.wire import array_of


@pytest.mark.parametrize("value", [[1.0, "2"], [b"1"], [[1], ["x" * 1000]], ["x" * 1000, *[""] * 1000]])
def test_a_list_that_holds_text_is_no_array_of_numbers(value):
    with pytest.raises(InvalidObservation) as error:
        array_of(value, "observation/state")
    assert error.value.message == "observation/state holds text where numbers are expected."
    assert error.value.field == "observation/state"


def test_nested_lists_of_numbers_are_an_array():
    np.testing.assert_array_equal(array_of([[1, 2], [3, 4]], "observation/image"), [[1, 2], [3, 4]])
