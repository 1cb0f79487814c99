"""A flat or local GRU as a folder of ONNX graphs (a round, a readout, a whole experiment) with a manifest: what
`syndistill export` writes. Built from the weights, without PyTorch.

Floats only, parities included (cumulative sums modulo 2), so that loaders without integer arithmetic take them.
Axes: B shots (dynamic), N detectors, T slices, S stabilisers, D width, O outputs or observables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.placement import Placement, place
from syndistill.circuits.training_noise import NOISE_KEY, noise_in
from syndistill.decoders.answers import learned_both, question
from syndistill.decoders.kernels.vector_code import NORM_EPSILON
from syndistill.decoders.kernels.weights import Compilable, FlatWeights, LocalWeights, WrittenOut, load_compilable
from syndistill.decoders.onnx_engine import (
    EXPERIMENT_FILE,
    FORMAT,
    MANIFEST_FILE,
    READOUT_FILE,
    STEP_FILE,
    WHAT,
    with_hash,
)
from syndistill.errors import SyndistillError
from syndistill.files.families import MOST_FRAME, MOST_LOGIT, n_channels
from syndistill.files.network_file import trained_rounds
from syndistill.safe_files import replacing, write_json

OPSET = 17  # the first with LayerNormalization
_IR_VERSION = 8  # of that opset's time: older loaders refuse newer files


class Graph:
    """Nodes and constants of a graph under construction; every method returns the name of its result."""

    def __init__(self, name: str) -> None:
        try:
            import onnx
        except ImportError as error:
            raise SyndistillError("ONNX export needs onnx: pip install 'syndistill[onnx]'") from error
        self._onnx = onnx
        self._name = name
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, values: NDArray[Any] | Sequence[int] | float) -> str:
        array = np.asarray(values)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        name = f"c{len(self._constants)}"
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A node with one output that matters: its first, or for GRU its second, the final state."""
        name = output or f"v{len(self._nodes)}"
        outputs = ["", name] if kind == "GRU" else [name]
        self._nodes.append(self._onnx.helper.make_node(kind.split()[0], list(inputs), outputs, **attributes))
        return name

    def model(self, inputs: dict[str, int], outputs: dict[str, int]) -> bytes:
        """The file's content. inputs, outputs: name and size of the second axis; the first is the batch."""
        h, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        ends = [
            [h.make_tensor_value_info(name, kind, ["batch", size]) for name, size in named.items()]
            for named in (inputs, outputs)
        ]
        graph = h.make_graph(self._nodes, self._name, *ends, self._constants)
        model = h.make_model(
            graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="syndistill"
        )
        self._onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def modulo_2(self, x: str) -> str:
        half = self.op("Floor", self.op("Mul", x, self.constant(0.5)))
        return self.op("Sub", x, self.op("Mul", half, self.constant(2.0)))

    def xor(self, x: str, y: str, output: str = "") -> str:
        """x + y - 2 x y."""
        both = self.op("Mul", self.op("Mul", x, y), self.constant(2.0))
        return self.op("Sub", self.op("Add", x, y), both, output=output)

    def dense(self, x: str, weight_OI: NDArray[np.float32], bias_O: NDArray[np.float32], output: str = "") -> str:
        return self.op("Gemm", x, self.constant(weight_OI), self.constant(bias_O), transB=1, output=output)

    def layer(self, x: str, weights: FlatWeights, name: str) -> str:
        return self.dense(x, weights.tensors[f"{name}.weight"], weights.tensors[f"{name}.bias"])

    def gelu(self, x: str) -> str:
        erf = self.op("Erf", self.op("Mul", x, self.constant(float(np.sqrt(0.5)))))
        return self.op("Mul", self.op("Mul", x, self.constant(0.5)), self.op("Add", erf, self.constant(1.0)))

    def gru(self, cell: WrittenOut, bits_RBI: str, state_1BD: str, every: bool = False) -> str:
        """(1, B, D): the state after all rounds. every: (R, 1, B, D), those after each."""
        d = len(cell.hidden_bias) // 3
        order = np.concatenate([np.arange(d, 2 * d), np.arange(d), np.arange(2 * d, 3 * d)])  # ONNX: update first
        bias = np.concatenate([cell.bias[order], cell.hidden_bias[order]])
        constants = [self.constant(a[None]) for a in (cell.inputs[order], cell.recurrent[order], bias)]
        kind = "GRU" if not every else "GRU of every round"
        return self.op(kind, bits_RBI, *constants, "", state_1BD, hidden_size=d, linear_before_reset=1)

    def residual(self, x: str, tensors: Mapping[str, NDArray[np.float32]], name: str, layers: int) -> str:
        """models.blocks.ResidualDense over the last axis; its tensors are called `name`..."""
        for layer in range(layers):
            norm = [self.constant(tensors[f"{name}.norms.{layer}.{part}"]) for part in ("weight", "bias")]
            inner = self.op("LayerNormalization", x, *norm, axis=-1, epsilon=NORM_EPSILON)
            for part in ("ins", "outs"):
                product = self.op("MatMul", inner, self.constant(tensors[f"{name}.{part}.{layer}.weight"].T))
                inner = self.op("Add", product, self.constant(tensors[f"{name}.{part}.{layer}.bias"]))
                inner = self.gelu(inner) if part == "ins" else inner
            x = self.op("Add", x, inner)
        return x


def decide(g: Graph, weights: Compilable, state_BD: str, bits_BI: str, basis: str, output: str = "") -> str:
    """Line 0's logits (B, O), from the state and the last slice's events and parities."""
    if isinstance(weights, LocalWeights):
        return _decide_locally(g, weights, state_BD, bits_BI, basis, output)
    weights = weights.reading(basis)
    state_BD, frames_BF, _ = _frames_apart(g, weights, basis, state_BD)
    x = g.gelu(g.layer(g.op("Concat", state_BD, bits_BI, axis=1), weights, "decide.0"))
    x = g.residual(x, weights.tensors, "decide.2", weights.readout_layers)
    logits_BO = g.dense(x, *weights.heads(basis), output="" if frames_BF else output)
    return _in_frame(g, logits_BO, frames_BF, output) if frames_BF else logits_BO


def _in_frame(g: Graph, logits_BO: str, frames_BO: str, output: str) -> str:
    """As `models.frames.in_frame`."""
    one, most = g.constant(1.0), g.constant(MOST_LOGIT)
    against = g.op("Exp", g.op("Neg", g.op("Clip", logits_BO, g.constant(-MOST_LOGIT), most)))
    more, less = g.op("Add", one, frames_BO), g.op("Sub", one, frames_BO)
    above = g.op("Add", more, g.op("Mul", less, against))
    below = g.op("Add", less, g.op("Mul", more, against))
    return g.op("Log", g.op("Div", above, below), output=output)


def _columns(g: Graph, x: str, first: int, behind: int | None) -> str:
    """Of (B, ...): those from `first` on, to before `behind`."""
    most = np.iinfo(np.int64).max if behind is None else behind
    return g.op("Slice", x, g.constant([first]), g.constant([most]), g.constant([1]))


def _moved(
    g: Graph, weights: Compilable, basis: str, bits_RBI: str, state_BD: str, rounds: int, output: str = ""
) -> str:
    """(B, D): the state after these rounds."""
    cell = weights.written_out("cell", basis)
    state_BD, frames_BF, counted_BK = _frames_apart(g, weights, basis, state_BD)
    if not frames_BF:
        return g.op("Squeeze", g.gru(cell, bits_RBI, _unsqueezed(g, state_BD)), g.constant([0]), output=output)
    states_R1BD = g.gru(cell, bits_RBI, _unsqueezed(g, state_BD), every=True)
    factors = [_turns(g, weights, states_R1BD, b, f) for b, f in _read(weights, basis)]
    if counted_BK:
        assert isinstance(weights, LocalWeights)
        behind = _agreeing(g, weights, basis, bits_RBI, factors, frames_BF, counted_BK, rounds)
    else:
        turns_R1BF = factors[0] if len(factors) == 1 else g.op("Concat", *factors, axis=3)
        turn_BF = g.op("Squeeze", g.op("ReduceProd", turns_R1BF, axes=[0], keepdims=0), g.constant([0]))
        behind = [g.op("Mul", frames_BF, turn_BF)]
    last_1BD = g.op("Gather", states_R1BD, g.constant(-1), axis=0)
    return g.op("Concat", g.op("Squeeze", last_1BD, g.constant([0])), *behind, axis=1, output=output)


def _agreeing(
    g: Graph,
    weights: LocalWeights,
    basis: str,
    bits_RBI: str,
    factors: Sequence[str],
    frames_BF: str,
    counted_BK: str,
    rounds: int,
) -> list[str]:
    """The frames and the counted quiet rounds behind a state after these rounds, as `models.frames.agreeing`."""
    layout, most, one = weights.layout, weights.agree_after, g.constant(1.0)
    n, lines, pairs = layout.n_stabilisers, layout.n_lines, _read(weights, basis)
    kept, counts = [], []
    for c, (own, read_as) in enumerate(pairs):
        place_S = layout.turned_back_S if read_as != own else np.arange(n)  # bits come in the layout's order
        signs_SL, strips_SK = (
            g.constant(of(read_as)[place_S].astype(np.float32)) for of in (layout.line_matrix, layout.strip_matrix)
        )
        frames = _columns(g, frames_BF, c * lines, (c + 1) * lines)
        counted = _columns(g, counted_BK, c * (lines - 1), (c + 1) * (lines - 1))
        for r in range(rounds):
            bits_BI, turn_1BL = (g.op("Gather", x, g.constant(r), axis=0) for x in (bits_RBI, factors[c]))
            busy = g.op("Min", g.op("MatMul", _columns(g, bits_BI, 0, n), strips_SK), one)
            counted = g.op("Min", g.op("Add", counted, one), g.constant(float(most)))
            counted = g.op("Mul", counted, g.op("Sub", one, busy))
            joined = g.op("Max", g.op("Sub", counted, g.constant(float(most - 1))), g.constant(0.0))
            flipped = g.modulo_2(g.op("MatMul", _columns(g, bits_BI, n, 2 * n), signs_SL))
            signs = g.op("Sub", one, g.op("Mul", flipped, g.constant(2.0)))
            frames = g.op("Mul", frames, g.op("Squeeze", turn_1BL, g.constant([0])))
            frames = _drawn(g, frames, signs, joined, lines, weights.share(own))
        kept.append(frames)
        counts.append(counted)
    return [*kept, *counts]


def _drawn(g: Graph, frames: str, signs: str, joined: str, lines: int, share: float) -> str:
    """Frames (B, L), each drawn to the mean log odds of those it is joined to."""
    one = g.constant(1.0)
    bounded = g.op("Clip", frames, g.constant(-MOST_FRAME), g.constant(MOST_FRAME))
    odds = g.op("Log", g.op("Div", g.op("Add", one, bounded), g.op("Sub", one, bounded)))
    odds = g.op("Mul", odds, signs)
    each = [_columns(g, odds, line, line + 1) for line in range(lines)]
    here = [_columns(g, joined, k, k + 1) for k in range(lines - 1)]
    apart = [g.op("Sub", one, k) for k in here]
    sums, counts = [each[0]], [g.op("Add", g.op("Mul", each[0], g.constant(0.0)), one)]
    for k, is_joined in enumerate(here):
        sums.append(g.op("Add", each[k + 1], g.op("Mul", is_joined, sums[k])))
        counts.append(g.op("Add", one, g.op("Mul", is_joined, counts[k])))
    for k in reversed(range(lines - 1)):
        for of in (sums, counts):
            of[k] = g.op("Add", g.op("Mul", here[k], of[k + 1]), g.op("Mul", apart[k], of[k]))
    sums_BL, counts_BL = (g.op("Concat", *of, axis=1) for of in (sums, counts))
    towards = g.op("Sub", g.op("Div", sums_BL, counts_BL), odds)
    drawn = g.op("Mul", g.op("Add", odds, g.op("Mul", g.constant(share), towards)), signs)
    drawn = g.op("Tanh", g.op("Mul", drawn, g.constant(0.5)))
    agrees = g.op("Min", g.op("Sub", counts_BL, one), one)
    return g.op("Add", g.op("Mul", agrees, drawn), g.op("Mul", g.op("Sub", one, agrees), frames))


def _frames_apart(g: Graph, weights: Compilable, basis: str, state_BD: str) -> tuple[str, str, str]:
    """The GRU's states, the frames behind them, and the rounds counted behind those; "" where there are none."""
    if not weights.keeps_frame:
        return state_BD, "", ""
    n, counted = weights.n_states, weights.n_states + weights.n_frames(basis)
    behind = _columns(g, state_BD, counted, None) if weights.n_counted(basis) else ""
    return _columns(g, state_BD, 0, n), _columns(g, state_BD, n, counted), behind


def _read(weights: Compilable, basis: str) -> tuple[tuple[str, str], ...]:
    """The bases answered for, each with the one whose lines it has inside."""
    if basis == "both":
        return ("x", "x"), ("z", "z")
    return ((basis, weights.read_as(basis) if isinstance(weights, LocalWeights) else basis),)


def _turns(g: Graph, weights: Compilable, states_R1BD: str, basis: str, read_as: str) -> str:
    """(R, 1, B, F): what each round multiplies the frames of one basis by."""
    weight, bias = weights.factors(basis)
    sums = g.op("Add", g.op("MatMul", states_R1BD, g.constant(weight.T)), g.constant(bias))
    factors = g.op("Tanh", sums)
    if isinstance(weights, FlatWeights):
        return factors
    d = weights.layout.n_lines  # a line has the product of its qubits: rows and columns of the grid
    grid = g.op("Reshape", factors, g.constant([0, 0, 0, d, d]))
    return g.op("ReduceProd", grid, axes=[4 if read_as == "x" else 3], keepdims=0)


def _decide_locally(g: Graph, weights: LocalWeights, state_BD: str, bits_BI: str, basis: str, output: str) -> str:
    """One more cell over the last slice, the data qubits from their corners, lines, one answer of all lines."""
    n, lines, read_as = weights.layout.n_stabilisers, weights.layout.n_lines, weights.read_as(basis)
    state_BD, frames_BF, _ = _frames_apart(g, weights, basis, state_BD)
    state = g.gru(weights.written_out("last_cell", basis), _unsqueezed(g, bits_BI), _unsqueezed(g, state_BD))
    turned_S = weights.layout.turned_S if read_as != basis else np.arange(n)
    bits = g.op("Gather", bits_BI, g.constant(np.concatenate([turned_S, n + turned_S])), axis=1)
    by_kind = g.op("Transpose", g.op("Reshape", bits, g.constant([0, 2, n])), perm=[0, 2, 1])
    states = g.op("Reshape", g.op("Squeeze", state, g.constant([0])), g.constant([0, n, weights.width]))
    seen = g.op("Concat", states, by_kind, axis=2)
    seen = g.op("Pad", seen, g.constant([0, 0, 0, 0, 1, 0]))  # a corner where no stabiliser is holds zeros
    kinds, parts = weights.qubit_kinds(), []
    for kind, corners_Q4 in enumerate(kinds.corners):
        corners = g.op("Gather", seen, g.constant(corners_Q4.ravel()), axis=1)
        corners = g.op("Reshape", corners, g.constant([0, len(corners_Q4), 4 * (weights.width + 2)]))
        product = g.op("MatMul", corners, g.constant(weights.tensors[f"project.{kind}.weight"].T))
        parts.append(g.op("Relu", g.op("Add", product, g.constant(weights.tensors[f"project.{kind}.bias"]))))
    data = g.op("Gather", g.op("Concat", *parts, axis=1), g.constant(kinds.place_Q), axis=1)
    grid = g.op("Reshape", data, g.constant([0, lines, lines, weights.readout_width]))
    parity = g.op("Slice", bits, g.constant([n]), g.constant([2 * n]), g.constant([1]))
    pairs = _read(weights, basis)
    frames = [_columns(g, frames_BF, i * lines, (i + 1) * lines) if frames_BF else "" for i in range(len(pairs))]
    answers = [
        _line_0(g, weights, grid, parity, own, b, f, output if len(pairs) == 1 else "")
        for own, (b, f) in zip(frames, pairs, strict=True)
    ]
    return answers[0] if len(answers) == 1 else g.op("Concat", *answers, axis=1, output=output)


def _line_0(
    g: Graph, weights: LocalWeights, grid: str, parity: str, frames_BL: str, basis: str, read_as: str, output: str
) -> str:
    """(B, 1) of one basis: all lines in their frames, where they have some, each turned to the first one's label by the
    final parities."""
    pooled = g.op("ReduceMean", grid, axes=[2 if read_as == "x" else 1], keepdims=0)
    t = weights.tensors
    lines = g.residual(g.op("Add", pooled, g.constant(t[f"line.{basis}"])), t, "network", weights.readout_layers)
    products = g.op("Mul", lines, g.constant(t[f"heads.{basis}.weight"]))
    logits = g.op("ReduceSum", products, g.constant([2]), keepdims=0)
    logits = g.op("Add", logits, g.constant(t[f"heads.{basis}.bias"]))
    if frames_BL:
        logits = _in_frame(g, logits, frames_BL, "")
    flipped = g.modulo_2(g.op("MatMul", parity, g.constant(weights.layout.line_matrix(read_as).astype(np.float32))))
    sign = g.op("Sub", g.constant(1.0), g.op("Mul", flipped, g.constant(2.0)))
    return g.op("ReduceMean", g.op("Mul", logits, sign), axes=[1], keepdims=1, output=output)


def _unsqueezed(g: Graph, x: str) -> str:
    return g.op("Unsqueeze", x, g.constant([0]))


def step_graph(weights: Compilable, basis: str) -> bytes:
    """events (B, S), parity (B, S), state (B, D) -> new_parity, new_state. Undefined events are 0."""
    g, s, d = Graph("step"), weights.layout.n_stabilisers, len(weights.start(basis))
    parity = g.xor("parity", "events", output="new_parity")
    bits = _unsqueezed(g, g.op("Concat", "events", parity, axis=1))
    _moved(g, weights, basis, bits, "state", 1, output="new_state")
    return g.model({"events": s, "parity": s, "state": d}, {"new_parity": s, "new_state": d})


def readout_graph(weights: Compilable, basis: str) -> bytes:
    """last (B, S), parity (B, S), state (B, D) -> logits (B, O) for line 0. Undefined entries of last are 0."""
    g, s = Graph("readout"), weights.layout.n_stabilisers
    bits = g.op("Concat", "last", g.xor("parity", "last"), axis=1)
    decide(g, weights, "state", bits, basis, output="logits")
    sizes = {"last": s, "parity": s, "state": len(weights.start(basis))}
    return g.model(sizes, {"logits": n_channels(weights.output, basis)})


def experiment_graph(weights: Compilable, placement: Placement) -> bytes:
    """detectors (B, N), 0 or 1 in Stim's order -> flips (B, O): the probability that each observable flipped."""
    g, n, s = Graph("experiment"), len(placement.slice_N), placement.layout.n_stabilisers
    slices = placement.rounds + 1
    source = np.full(slices * s, n)  # what a slice does not define reads the zero behind the detectors
    asked = question(placement, placement.basis)
    at = asked.placement.slice_N * s + asked.placement.stabiliser_N
    source[at] = np.arange(n) if asked.kept_N is None else asked.kept_N
    padded = g.op("Pad", "detectors", g.constant([0, 0, 0, 1]))
    events = g.op("Reshape", g.op("Gather", padded, g.constant(source), axis=1), g.constant([0, slices, s]))
    parity = g.modulo_2(g.op("CumSum", events, g.constant(1)))
    bits_BTI = g.op("Concat", events, parity, axis=2)
    measured = g.op("Slice", bits_BTI, g.constant([0]), g.constant([placement.rounds]), g.constant([1]))
    last_BI = g.op("Gather", bits_BTI, g.constant(placement.rounds), axis=1)
    batch = g.op("Slice", g.op("Shape", "detectors"), g.constant([0]), g.constant([1]))
    shape = g.op("Concat", batch, g.constant([1]), axis=0)
    start = g.op("Expand", g.constant(weights.start(placement.basis)[None]), shape)
    state = _moved(g, weights, placement.basis, g.op("Transpose", measured, perm=[1, 0, 2]), start, placement.rounds)
    logits = decide(g, weights, state, last_BI, placement.basis)
    _flips(g, logits, weights.output, placement)
    return g.model({"detectors": n}, {"flips": placement.n_observables})


def _product(g: Graph, signs: str, which: np.ndarray) -> str:
    """(B, 1): the product of these columns of (B, 2), 1 of none."""
    if len(which) == 2:
        return g.op("ReduceProd", signs, axes=[1])
    column = np.zeros((2, 1)) if len(which) == 0 else np.eye(2)[:, which]
    return g.op("Add", g.op("MatMul", signs, g.constant(column)), g.constant(float(len(which) == 0)))


def _flips(g: Graph, logits: str, output: str, placement: Placement) -> None:
    """The observables' probabilities from line 0's, see `decoders.answers`."""
    holds_O2 = placement.holds_O2.astype(int)
    if output == "joint4":  # classes I, X, Z, Y; X flips the z line, Z the x line
        flipped_42 = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        odd_4O = (flipped_42 @ holds_O2.T % 2).astype(float)
        chances = g.op("MatMul", g.op("Softmax", logits, axis=1), g.constant(odd_4O))
    elif placement.basis == "both":  # the two lines as independent: 1 - 2 P of their product multiplies
        signs = g.op("Sub", g.constant(1.0), g.op("Mul", g.constant(2.0), g.op("Sigmoid", logits)))
        columns = [_product(g, signs, np.flatnonzero(holds_2)) for holds_2 in holds_O2]
        product = g.op("Concat", *columns, axis=1)
        chances = g.op("Mul", g.constant(0.5), g.op("Sub", g.constant(1.0), product))
    else:
        holds_1O = holds_O2[:, [("x", "z").index(placement.basis)]].T
        chances = g.op("MatMul", g.op("Sigmoid", logits), g.constant(holds_1O.astype(float)))
    turned_NO = placement.turn_OS[:, placement.stabiliser_N].T.astype(np.float32)
    turned = g.modulo_2(g.op("MatMul", "detectors", g.constant(turned_NO)))
    g.xor(chances, turned, output="flips")


def export_onnx(name_or_path: str | Path, circuit: stim.Circuit, label: str, folder: str | Path) -> Path:
    """Writes step, readout and experiment graphs and a manifest into a new folder, whole or not at all.

    label: what the manifest calls the circuit. SyndistillError for a network of another family or distance, a circuit
    that is no surface code memory, and a folder that exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise SyndistillError(f"{folder} exists; name a folder that is to be made, nothing was changed")
    weights = load_compilable(name_or_path)
    placement = place(circuit, noise_in(weights.metadata))
    _check(weights, placement, str(name_or_path))
    files = {
        STEP_FILE: step_graph(weights, placement.basis),
        READOUT_FILE: readout_graph(weights, placement.basis),
        EXPERIMENT_FILE: experiment_graph(weights, placement),
    }
    manifest = _manifest(weights, placement, str(name_or_path), label, circuit, files)
    with replacing(folder) as beside:
        beside.mkdir()
        for name, content in files.items():
            (beside / name).write_bytes(content)
        write_json(beside / MANIFEST_FILE, manifest)
    return folder


def _check(weights: Compilable, placement: Placement, name: str) -> None:
    if placement.layout != weights.layout:
        raise SyndistillError(
            f"{name} decodes distance {weights.distance}, the circuit has distance {placement.layout.distance}; "
            "take a network of that distance"
        )
    if placement.n_observables == 0:
        raise SyndistillError("the circuit has no OBSERVABLE_INCLUDE, so nothing to decode; add one")
    if placement.basis == "both" and not learned_both(weights.output, noise_in(weights.metadata)):
        raise SyndistillError(f"{name} knows one basis at a time, the circuit has both; export one for each basis")
    if isinstance(weights, LocalWeights) and weights.output == "joint4":
        raise SyndistillError(f"{name} is a local GRU of output joint4, which is not exported; take a two_channel one")
    n_channels(weights.output, placement.basis)


def _manifest(
    weights: Compilable,
    placement: Placement,
    name: str,
    label: str,
    circuit: stim.Circuit,
    files: Mapping[str, bytes],
) -> dict[str, Any]:
    layout = weights.layout
    content = {
        "what": WHAT,
        "format": FORMAT,
        "network": {
            "name": name,
            "weights_sha256": weights.sha256,
            "parameters": weights.n_parameters,
            "output": weights.output,
            "width": weights.width,
            "trained_rounds": trained_rounds(weights.metadata),
        },
        "experiment": {
            "label": label,
            "circuit_sha256": hashlib.sha256(str(circuit).encode()).hexdigest(),
            "distance": layout.distance,
            "rounds": placement.rounds,
            "basis": placement.basis,
            "holds_O2": placement.holds_O2.tolist(),
            "turn_OS": placement.turn_OS.tolist(),
            "slice_N": placement.slice_N.tolist(),
            "stabiliser_N": placement.stabiliser_N.tolist(),
        },
        "training_noise": weights.metadata.get(NOISE_KEY),
        "layout": {
            "cells_S2": layout.cells_S2.tolist(),
            "is_x_S": layout.is_x_S.tolist(),
            "on_basis_S": layout.on_basis_S(placement.basis).tolist(),
        },
        # The state before the first round, which the step graph takes. Of one basis: the graphs may read it turned.
        "start_D": {placement.basis: weights.start(placement.basis).tolist()},
        "opset": OPSET,
        "files": {file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
        "versions": {package: version(package) for package in ("syndistill", "onnx", "stim", "numpy")},
    }
    return with_hash(content)
