"""The rounds of a local GRU in compiled C, with their gradients: of what PyTorch multiplies by, 3 of 4 are zeros.

Axes: B shots, R rounds, S stabilisers, D width of a state, G = 3 gates, T = 9 places of a neighbourhood, P pairs of a
target and a source, X kinds of targets with weights of their own.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd.function import once_differentiable

from syndistill.errors import SyndistillError
from syndistill.files.families import BITS, PLACES

SOURCE = Path(__file__).with_suffix(".c")
WIDTHS = (8, 16, 32)
"""Those that fill vectors."""
_CHANNELS = 8  # at once: 24 gates in registers
_FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")


def _pointers(*names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_void_p) for name in names]


class _Cell(ctypes.Structure):
    _fields_ = _pointers("start_S", "source_P", "place_P", "kind_S", "wide", "tall", "inputs", "bias", "hidden_bias")


class _Gradients(ctypes.Structure):
    _fields_ = _pointers("tall", "inputs", "bias", "hidden_bias")


class LocalScan:
    """Runs one cell's rounds; on a CPU in float32, in one thread.

    block_SS: 9 * kind of the target + place of the source, of each (target, source); 9 * kinds for no neighbour. Raises
    SyndistillError where there is no C compiler or it refuses, and for widths other than `WIDTHS`.
    """

    def __init__(self, block_SS: NDArray[np.int64], width: int) -> None:
        if width not in WIDTHS:
            raise SyndistillError(f"compiled rounds take widths 8, 16 and 32, not {width}; set training.compile=false")
        self.width, self.kinds = width, int(block_SS.max()) // PLACES
        self.library = _library(len(block_SS), width, self.kinds)
        target_P, source_P = np.nonzero(block_SS < PLACES * self.kinds)
        start_S = np.searchsorted(target_P, np.arange(len(block_SS) + 1))
        place_P, kind_S = block_SS[target_P, source_P] % PLACES, block_SS.min(1) // PLACES
        self.pairs = [np.ascontiguousarray(x, np.int64) for x in (start_S, source_P, place_P, kind_S)]

    def __call__(
        self,
        bits_BRI: torch.Tensor,
        start_BSD: torch.Tensor,
        recurrent: torch.Tensor,
        inputs: torch.Tensor,
        bias_GSD: torch.Tensor,
        hidden_bias_SD: torch.Tensor,
    ) -> torch.Tensor:
        """The states after each round, (B, R, S, D).

        bits_BRI: 0 or 1, events and then parities of all stabilisers. recurrent: (X, G D, T D). inputs: (X, G D, T 2).
        """
        states = _Scan.apply(self, bits_BRI, start_BSD, recurrent, inputs, bias_GSD, hidden_bias_SD)
        return cast(torch.Tensor, states)

    def packed(self, recurrent: torch.Tensor, inputs: torch.Tensor) -> list[torch.Tensor]:
        """The weights wide, tall and of the inputs, as local_scan.c has them."""
        x, d, c = self.kinds, self.width, _CHANNELS
        tall = recurrent.view(x, 3 * d, PLACES, d).transpose(1, 2).contiguous()
        wide, of_bits = (
            w.view(x, 3, d // c, c, PLACES, -1).permute(0, 4, 2, 5, 1, 3).contiguous() for w in (recurrent, inputs)
        )
        return [wide, tall, of_bits]

    def cell(self, weights: list[torch.Tensor]) -> _Cell:
        return _Cell(*(x.ctypes.data for x in self.pairs), *(w.data_ptr() for w in weights))


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scan: LocalScan, bits: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        start, recurrent, inputs, bias, hidden_bias = (x.detach().contiguous() for x in tensors)
        bits, weights = bits.to(torch.uint8).contiguous(), [*scan.packed(recurrent, inputs), bias, hidden_bias]
        states = torch.empty(*bits.shape[:2], *start.shape[1:])
        _call(scan.library.scan, bits, scan.cell(weights), start, states)
        ctx.scan = scan
        ctx.save_for_backward(bits, start, states, *weights)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_states: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scan: LocalScan = ctx.scan
        bits, start, states, *weights = ctx.saved_tensors
        _, tall, _, bias, hidden_bias = weights
        d_start, d_tall, d_bias, d_hidden = (torch.zeros_like(x) for x in (start, tall, bias, hidden_bias))
        d_inputs = torch.zeros(scan.kinds, PLACES, 3 * scan.width, BITS)
        sums = _Gradients(*(x.data_ptr() for x in (d_tall, d_inputs, d_bias, d_hidden)))
        _call(scan.library.scan_back, bits, scan.cell(weights), start, states, d_states.contiguous(), d_start, sums)
        rows = (scan.kinds, 3 * scan.width, -1)
        d_recurrent, d_inputs = (x.transpose(1, 2).reshape(rows) for x in (d_tall, d_inputs))
        return None, None, d_start, d_recurrent, d_inputs, d_bias, d_hidden


def _call(function: Any, bits: torch.Tensor, cell: _Cell, *more: torch.Tensor | ctypes.Structure) -> None:
    shots, rounds = (ctypes.c_int64(n) for n in bits.shape[:2])
    pointers = [ctypes.c_void_p(x.data_ptr()) if isinstance(x, torch.Tensor) else ctypes.byref(x) for x in more]
    if function(shots, rounds, ctypes.byref(cell), ctypes.c_void_p(bits.data_ptr()), *pointers):
        raise MemoryError(f"no memory for {rounds.value} rounds of a local GRU")


@lru_cache
def _library(n_stabilisers: int, width: int, kinds: int) -> ctypes.CDLL:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SyndistillError("compiled rounds need a C compiler (gcc); install one or set training.compile=false")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "local_scan.so"
        sizes = (f"-DS={n_stabilisers}", f"-DD={width}", f"-DC={_CHANNELS}", f"-DK={kinds}")
        command = [compiler, *_FLAGS, *sizes, "-o", str(library), str(SOURCE)]
        said = subprocess.run(command, capture_output=True, text=True)
        if said.returncode:
            first = (said.stderr.strip() or f"exit code {said.returncode}").splitlines()[0]
            raise SyndistillError(f"{compiler} refuses the compiled rounds ({first}); set training.compile=false")
        return ctypes.CDLL(str(library))
