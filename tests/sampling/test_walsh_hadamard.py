"""The transform against scipy's matrix, and against itself. `xor_distribution` is tested with the exact posterior."""

import numpy as np
import pytest
from scipy.linalg import hadamard

from syndistill.sampling.exact_posterior import walsh_hadamard


@pytest.mark.parametrize("n", range(10))
def test_walsh_hadamard_small(n):
    values = np.random.default_rng(n).normal(size=1 << n)
    expected = hadamard(1 << n) @ values if n else values.copy()
    walsh_hadamard(values)
    np.testing.assert_allclose(values, expected, atol=1e-11)


def test_walsh_hadamard_large_is_its_own_inverse():
    values = np.random.default_rng(0).normal(size=1 << 19)
    transformed = values.copy()
    walsh_hadamard(transformed)
    assert transformed[0] == pytest.approx(values.sum(), abs=1e-8)
    for row in (1, 1 << 18, 0b1010101010101010101):
        signs = 1 - 2.0 * (np.bitwise_count(np.arange(values.size) & row) % 2)
        assert transformed[row] == pytest.approx(float(signs @ values), abs=1e-8)
    walsh_hadamard(transformed)
    np.testing.assert_allclose(transformed / values.size, values, atol=1e-12)


def test_walsh_hadamard_refuses_other_arrays():
    for bad in (np.zeros(3), np.zeros(4, np.float32), np.zeros(8)[::2], np.zeros((2, 2))):
        with pytest.raises(ValueError, match="contiguous float64"):
            walsh_hadamard(bad)
