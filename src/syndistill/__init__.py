"""syndistill: distil a strong neural decoder for quantum error correction into a small one, and run it.

Ten names, each loaded when it is first used:

    load              a Student by shipped name or file, compiled for this machine; needs no PyTorch
    on_circuit        its decoder for a Stim circuit or error model
    decode            probabilities of a flip, from bit-packed detectors, in one call
    stream            its decoder round by round
    place             what is understood of a circuit: code, way round, slices, observables
    train_teacher     train a Teacher from a recipe
    distill_student   distil a Student from a Teacher, or walk the whole road
    evaluate          judge decoders on the same shots, Teachers and matching among them
    export            a Student as ONNX graphs
    recipe            a complete configuration by name

Six lines decode a circuit:

    >>> import stim, syndistill
    >>> circuit = stim.Circuit.generated(
    ...     "surface_code:rotated_memory_x", distance=3, rounds=3,
    ...     after_clifford_depolarization=0.008, before_measure_flip_probability=0.008)
    >>> detectors, flipped = circuit.compile_detector_sampler(seed=1).sample(
    ...     10_000, separate_observables=True, bit_packed=True)
    >>> probabilities = syndistill.decode("student-d3", circuit, detectors)  # float64 (shots, observables)
    >>> wrong = ((probabilities > 0.5) != flipped).mean()

The same from a shell: `syndistill --help`. In sinter: `syndistill.sinter_plugin`.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syndistill.circuits.placement import place
    from syndistill.decoders.network import StreamingDecoder as stream
    from syndistill.decoders.runtime import decode, load, on_circuit
    from syndistill.deploy.export import export_onnx as export
    from syndistill.recipes import recipe
    from syndistill.runs.verbs import distill_student, evaluate, train_teacher

__version__ = version("syndistill")
__all__ = [
    "decode",
    "distill_student",
    "evaluate",
    "export",
    "load",
    "on_circuit",
    "place",
    "recipe",
    "stream",
    "train_teacher",
]

_WHERE = {
    "load": ("decoders.runtime", "load"),
    "on_circuit": ("decoders.runtime", "on_circuit"),
    "decode": ("decoders.runtime", "decode"),
    "stream": ("decoders.network", "StreamingDecoder"),
    "place": ("circuits.placement", "place"),
    "train_teacher": ("runs.verbs", "train_teacher"),
    "distill_student": ("runs.verbs", "distill_student"),
    "evaluate": ("runs.verbs", "evaluate"),
    "export": ("deploy.export", "export_onnx"),
    "recipe": ("recipes", "recipe"),
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'syndistill' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    found = getattr(import_module(f"syndistill.{module}"), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
