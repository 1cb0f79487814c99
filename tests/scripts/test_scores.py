"""The page of scores: its summary, its legend, and what a Student keeps of the Teacher's gain."""

import pytest
import scores

from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.rows import Pair, Row

SHOTS = 1_000
SUITE = scores.Suite(
    5, "teacher", ("good", "nets/bad.safetensors"),
    short=5, long=(9, 15), rates=(0.002, 0.004), slow=(),
    compiled="good ran compiled", others={"bad": "a bad one"},
)  # fmt: skip
ERRORS = {"pymatching": 150, scores.RIVAL: 100, "teacher": 60, "good": 80, "nets/bad.safetensors": 120}


def row(decoder, experiment, errors):
    ids = (decoder, decoder, str(experiment), f"circuit {experiment}", "batch", "shots")
    return Row(*ids, SHOTS, errors, (errors,), 0.5, None, None)


def pair(a, b, experiment, errors_a, errors_b):
    """Half of the fewer errors are both's."""
    both = min(errors_a, errors_b) // 2
    ids = (a, b, a, b, str(experiment), f"circuit {experiment}", "batch", "shots")
    return Pair(*ids, SHOTS, errors_a - both, errors_b - both, both)


def comparison(experiment, **changed):
    """The rival stands first in some pairs and second in others, as on the command line."""
    errors = ERRORS | changed
    rows = [row(decoder, experiment, count) for decoder, count in errors.items()]
    pairs = [pair(scores.RIVAL, other, experiment, 100, errors[other]) for other in list(errors)[2:]]
    pairs.append(pair("pymatching", scores.RIVAL, experiment, errors["pymatching"], 100))
    return Comparison(rows, pairs)


@pytest.fixture
def found():
    """At 9 rounds in Z the Teacher is two errors below the rival, in X far."""
    found = []
    for block in scores.grid(SUITE, SHOTS, SHOTS):
        small = block.experiment.rounds == 9 and block.experiment.basis == "z"
        found.append((block, comparison(block.experiment, **({"teacher": 98} if small else {}))))
    return found


def test_the_page_says_first_what_came_out_and_how_to_read_it(found):
    lines = scores.page(SUITE, found, "the command").splitlines()
    assert lines[0] == "# Scores of the shipped d=5 networks"
    assert lines[2].startswith("**In short.** LER over pymatching-correlated's, both bases together, p=.004")
    assert lines[4:10] == [
        "| decoder | r=5 | r=9 | r=15 |",
        "|---|---|---|---|",
        "| teacher | **0.600** | **0.790** | **0.600** |",
        "| good | **0.800** | **0.800** | **0.800** |",
        "| bad | 1.200 | 1.200 | 1.200 |",
        "",
    ]
    text = "\n".join(lines)
    assert "good ran compiled." in text
    assert "- **bad:** a bad one. It does not ship." in text
    assert "`the command`" in text
    assert all(f"**{word}:**" in text for word in ("NLL", "ECE", "T", "us per shot"))


def test_what_is_not_told_from_the_rival_is_not_bold(found):
    block, _ = found[0]
    found = [(b, comparison(b.experiment, good=99)) for b, _ in found]
    assert scores._over_rival(found, block.experiment.rounds, "good") == "0.990"


def test_no_share_of_a_gain_that_is_none(found):
    (head, _, *lines) = scores._gains(SUITE, found)
    assert head == "| basis | rounds | Teacher's gain | good keeps | bad keeps |"
    assert lines == [
        "| z | 5 | 0.04000 | 50% | none |",
        "| z | 9 | 0.00200 | - | - |",
        "| z | 15 | 0.04000 | 50% | none |",
        "| x | 5 | 0.04000 | 50% | none |",
        "| x | 9 | 0.04000 | 50% | none |",
        "| x | 15 | 0.04000 | 50% | none |",
    ]


def test_the_suites_say_what_their_unshipped_networks_are():
    for distance, suite in scores.SUITES.items():
        assert suite.distance == distance
        assert [scores._short(name) for name in suite.students if "/" in name] == list(suite.others)


def test_both_observables_at_once_have_a_page_of_their_own():
    """One basis, the optimum everywhere, and no fit of one observable."""
    suite = scores.JOINT
    blocks = list(scores.grid(suite, 2_000, SHOTS))
    assert [(b.experiment.basis, b.experiment.rounds, b.shots) for b in blocks] == [
        ("both", 3, 2_000), ("both", 5, SHOTS), ("both", 9, SHOTS),
    ]  # fmt: skip
    assert all(b.decoders == ("pymatching", scores.RIVAL, "optimal", "teacher-d3-joint") for b in blocks)
    errors = {"pymatching": 150, scores.RIVAL: 100, "optimal": 50, "teacher-d3-joint": 60, "student-d3-joint": 80}
    found = [
        (b, Comparison([row(d, b.experiment, e) for d, e in errors.items()],
                       [pair(d, scores.RIVAL, b.experiment, e, 100) for d, e in errors.items() if d != scores.RIVAL]))
        for b in blocks
    ]  # fmt: skip
    text = scores.page(suite, found, "the command")
    assert text.startswith("# Scores of the shipped d=3 networks for both observables at once")
    assert "a shot is wrong where any observable is" in text
    assert "error per round" not in text
    assert "| both | 9 | " in text
