"""The two ways of a convolution over stabilisers against the real one, and nothing lost at the boundary."""

import pytest
import torch

from syndistill.circuits.layout import Layout
from syndistill.models.blocks import StabiliserConvolution, StabiliserGrid, pool_lines


@pytest.mark.parametrize("distance", [3, 5, 7])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_equals_the_real_convolution_on_the_grid(distance, dilation):
    torch.manual_seed(0)
    convolution = StabiliserConvolution(Layout(distance), width=6, channels=5, dilation=dilation)
    torch.nn.init.normal_(convolution.grid.padding_D)
    x_BSD = torch.randn(4, distance**2 - 1, 6, requires_grad=True)
    ours = convolution(x_BSD, convolution.prepared())
    real = convolution.grid.gather(convolution.convolution(convolution.grid.scatter(x_BSD)))
    torch.testing.assert_close(ours, real, rtol=1e-5, atol=1e-5)
    inputs = [x_BSD, convolution.grid.padding_D, convolution.convolution.weight, convolution.convolution.bias]
    for a, b in zip(
        torch.autograd.grad(ours.sin().mean(), inputs),
        torch.autograd.grad(real.sin().mean(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_one_matrix_only_where_most_stabilisers_are_neighbours():
    ways = {d: StabiliserConvolution(Layout(d), 2, 2, 1).prepared().weight.ndim for d in (3, 5)}
    assert ways == {3: 2, 5: 3}


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
