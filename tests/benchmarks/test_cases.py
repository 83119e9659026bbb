"""The cases themselves: named once, and checked by something that can fail."""

from __future__ import annotations

import numpy as np
import pytest

from cases import Work, all_cases, check


def test_every_case_has_a_name_of_its_own():
    names = [str(case) for case in all_cases()]
    assert len(names) == len(set(names))
    groups = {case.group for case in all_cases()}
    assert groups == {"products", "pointwise", "optimizer", "passes", "start"}
    assert all(case.stable for case in all_cases() if case.group in ("passes", "start"))


def answering(answer: object, expected: object = None) -> Work:
    return Work(
        lambda: None, answer=lambda: {"x": answer}, expected=lambda: {} if expected is None else {"x": expected}
    )


def test_a_wrong_answer_is_not_timed():
    exact = np.arange(1.0, 9.0)
    check(answering(exact.astype(np.float32), exact))
    with pytest.raises(AssertionError, match="x is off by"):
        check(answering(exact + 1e-3, exact))
    with pytest.raises(AssertionError, match="x is not finite"):
        check(answering(np.array([1.0, np.nan])))
    with pytest.raises(AssertionError, match="no answer for x"):
        check(Work(lambda: None, expected=lambda: {"x": exact}))
