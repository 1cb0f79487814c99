"""The two ways of a convolution over stabilisers, and nothing lost at the boundary."""

import pytest
import torch

from syndistill.circuits.layout import Layout
from syndistill.models.grid import StabiliserConvolution, StabiliserGrid, pool_lines


@pytest.mark.parametrize("distance", [3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_matrix_is_the_convolution(distance, dilation):
    torch.manual_seed(0)
    convolution = StabiliserConvolution(Layout(distance), width=6, channels=5, dilation=dilation).double()
    torch.nn.init.normal_(convolution.grid.padding_D)
    x_BSD = torch.randn(4, distance**2 - 1, 6, dtype=torch.float64, requires_grad=True)
    matrix = convolution.matrix()
    assert matrix is not None
    by_matrix, by_grid = convolution(x_BSD, matrix), convolution(x_BSD, None)
    torch.testing.assert_close(by_matrix, by_grid)
    inputs = [x_BSD, convolution.grid.padding_D, convolution.convolution.weight]
    for a, b in zip(
        torch.autograd.grad(by_matrix.square().sum(), inputs),
        torch.autograd.grad(by_grid.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_large_distances_take_the_real_convolution():
    assert StabiliserConvolution(Layout(7), 2, 2, 1).matrix() is None


@pytest.mark.parametrize("distance", [3, 7])
def test_scatter_puts_each_stabiliser_on_its_cell(distance):
    layout = Layout(distance)
    grid = StabiliserGrid(layout, 2)
    x_BSD = torch.randn(3, layout.n_stabilisers, 2)
    scattered = grid.scatter(x_BSD)
    rows, columns = layout.cells_S2.T
    assert torch.equal(scattered[:, :, rows, columns].transpose(1, 2), x_BSD)
    assert torch.equal(grid.gather(scattered), x_BSD)
    scattered[:, :, rows, columns] = grid.padding_D.detach()[:, None]
    assert torch.equal(scattered, grid.padding_D.detach()[:, None, None].expand_as(scattered))


def test_lines_are_rows_for_x_and_columns_for_z():
    data_BDHW = torch.arange(9.0).view(1, 1, 3, 3)
    assert pool_lines(data_BDHW, "x").flatten().tolist() == [1, 4, 7]
    assert pool_lines(data_BDHW, "z").flatten().tolist() == [3, 4, 5]
