"""What `import syndistill` offers: ten names, lazily, as its help says."""

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import syndistill
from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError


def test_the_help_is_the_table_of_contents_and_every_name_resolves():
    for name in syndistill.__all__:
        assert f"\n    {name} " in syndistill.__doc__
        assert callable(getattr(syndistill, name))
    assert set(syndistill.__all__) == set(syndistill._WHERE)
    assert not hasattr(syndistill, "no_such_name")


def test_the_six_lines_decode_a_circuit_better_than_matching():
    """1.8 % where plain matching has 2.0; a wrong way round would be far above. P(above 3 %) < 1e-15."""
    parsed = doctest.DocTestParser().get_doctest(syndistill.__doc__, {}, "face", None, 0)
    results = doctest.DocTestRunner().run(parsed, clear_globs=False)
    assert results.failed == 0
    assert results.attempted == 5
    assert parsed.globs["probabilities"].shape == (10_000, 1)
    assert parsed.globs["wrong"] < 0.03


def test_a_circuit_may_be_a_path(tmp_path):
    circuit = Experiment(3, 3, "z", "si1000", 0.004).circuit()
    detectors = circuit.compile_detector_sampler(seed=1).sample(50, bit_packed=True)
    wanted = syndistill.decode("student-d3", circuit, detectors)
    for path, text in (("m.stim", circuit), ("m.dem", circuit.detector_error_model(decompose_errors=True))):
        (tmp_path / path).write_text(str(text))
        assert np.array_equal(syndistill.decode("student-d3", tmp_path / path, detectors), wanted)
    assert np.abs(syndistill.decode("student-d3:int8", circuit, detectors) - wanted).max() < 0.1
    with pytest.raises(SyndistillError, match=r"no file student-3 \(did you mean 'student-d3'\?\)"):
        syndistill.decode("student-3", circuit, detectors)


def test_what_types_see_is_what_is_loaded():
    """The imports for type checkers and the table of where each name lies say the same."""
    tree = ast.parse(Path(syndistill.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for name, (module, attribute) in syndistill._WHERE.items():
        assert seen.pop(name) == (f"syndistill.{module}", attribute)
    assert seen == {}


def test_no_name_is_a_room_s():
    """The room would take the name's place as soon as something of it is imported."""
    rooms = {path.stem for path in Path(syndistill.__file__).parent.iterdir()}
    assert not rooms & set(syndistill.__all__)


def test_nothing_is_loaded_before_it_is_used():
    code = "import sys, syndistill; assert not {'torch', 'stim', 'numpy'} & set(sys.modules); syndistill.load; "
    code += "assert 'torch' not in sys.modules; print(dir(syndistill)[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "__version__"), done.stderr
