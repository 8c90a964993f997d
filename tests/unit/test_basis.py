"""The cosine transform against SciPy's, both ways it is computed, and its derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch

import unidiff as ud

F64 = torch.float64


@pytest.mark.parametrize(
    "shape", [(2,), (5,), (128,), (129,), (130,), (1001,), (4096,), (3, 131), (130, 7), (4, 2, 150)]
)
def test_it_is_the_orthonormal_transform_of_type_2(shape):
    x = torch.randn(3, *shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    basis = ud.DCT(shape)
    axes = tuple(range(1, x.ndim))
    u = basis.forward(x)
    # Values of order 1 to 4; a product with a matrix rounds by sqrt(n) eps, an FFT by log2(n) eps.
    np.testing.assert_allclose(u, scipy.fft.dctn(x.numpy(), norm="ortho", axes=axes), rtol=0, atol=2e-14)
    torch.testing.assert_close(basis.inverse(u), x, rtol=0, atol=2e-14)


@pytest.mark.parametrize("n", [130, 131])
def test_derivatives_of_the_fast_transform_are_the_transform(n):
    # Linear and orthonormal: the Jacobian of one is the other, in both modes of differentiation.
    basis, one = ud.DCT((n,)), torch.eye(n, dtype=F64)
    x = torch.zeros(n, dtype=F64)
    for there, back in ((basis.forward, basis.inverse), (basis.inverse, basis.forward)):
        matrix = there(one).T
        torch.testing.assert_close(torch.func.jacrev(there)(x), matrix, rtol=0, atol=1e-14)
        torch.testing.assert_close(torch.func.jacfwd(there)(x), matrix, rtol=0, atol=1e-14)
        torch.testing.assert_close(back(matrix.T), one, rtol=0, atol=1e-14)
