"""The line readout sees every stabiliser, those at the boundary included (a stride of 2 would lose some)."""

import pytest
import torch

from syndistill.circuits.layout import Layout
from syndistill.models.blocks import LineReadout


@pytest.mark.parametrize("distance", [3, 5])
@pytest.mark.parametrize("basis", ["x", "z"])
def test_every_stabiliser_reaches_the_lines_it_touches(distance, basis):
    torch.manual_seed(0)
    layout = Layout(distance)
    readout = LineReadout(layout, 8, 8, 1, 25, "two_channel")
    x_BSD = torch.randn(1, layout.n_stabilisers, 8)
    rounds_B = torch.tensor([3])
    axis = 0 if basis == "x" else 1
    with torch.no_grad():
        before_BLC = readout(x_BSD, rounds_B, basis)
        for s in range(layout.n_stabilisers):
            moved_BSD = x_BSD.clone()
            moved_BSD[0, s] += torch.randn(8)
            changed = (readout(moved_BSD, rounds_B, basis) - before_BLC).abs()[0, :, 0] > 1e-6
            # The cell at row r touches data rows r - 1 and r, as far as they exist.
            cell = layout.cells_S2[s, axis]
            touched = [line in (cell - 1, cell) for line in range(distance)]
            assert changed.tolist() == touched, s


def test_rounds_beyond_the_table_use_its_last_entry():
    readout = LineReadout(Layout(3), 8, 8, 1, 4, "two_channel")
    x_BSD = torch.randn(3, 8, 8)[:1].expand(3, -1, -1)
    with torch.no_grad():
        logits = readout(x_BSD, torch.tensor([3, 4, 90]), "z")
    torch.testing.assert_close(logits[1], logits[2])
    assert not torch.allclose(logits[0], logits[1])
