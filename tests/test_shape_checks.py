"""The shapes that signatures announce are really checked while tests run."""

import inspect
import os

import numpy as np
import pytest

from shape_checks import array_annotations, checked
from vislang.metrics import rank


@pytest.mark.skipif(os.environ.get("VISLANG_SHAPES", "1") != "1", reason="VISLANG_SHAPES is not 1")
def test_functions_of_vislang_are_checked():
    wrapped = [
        name
        for name, item in vars(rank).items()
        if inspect.isfunction(item) and array_annotations(inspect.unwrap(item))
    ]
    assert "retrieval_ranks" in wrapped
    assert all(hasattr(getattr(rank, name), "__wrapped__") for name in wrapped)


def both(a, b):
    return (a[: len(b)] * b).sum(1)


both.__annotations__ = {
    "a": 'Float[np.ndarray, "N D"]',
    "b": 'Float[np.ndarray, "N D"] | None',
    "return": 'Float[np.ndarray, " N"]',
}


def test_letters_must_agree_and_types_as_well():
    function = checked(both)
    assert function(np.ones((2, 3)), np.ones((2, 3))).shape == (2,)
    with pytest.raises(TypeError, match=r"b announces Float.* but is float64 \(1, 3\)"):
        function(np.ones((2, 3)), np.ones((1, 3)))
    with pytest.raises(TypeError, match="a announces"):
        function(np.ones((2, 3), int), np.ones((2, 3)))


def test_a_function_refuses_in_its_own_words():
    with pytest.raises(ValueError, match="operands could not be broadcast"):
        checked(both)(np.ones((2, 3)), np.ones((2, 4)))
