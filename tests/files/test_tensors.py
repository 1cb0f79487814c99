"""A file says when it is not what was written, whichever bit was changed; and other programs read it all the same."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from syndistill.errors import SyndistillError
from syndistill.files.tensors import adopt, main, read_sealed
from syndistill.models.tensors_file import load_tensors, save_tensors

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3), "half": torch.ones(3, dtype=torch.bfloat16),
    "codes": torch.tensor([-3, 4], dtype=torch.int8), "step": torch.tensor(7), "none": torch.zeros(0, 4),
    "flags": torch.tensor([True, False]),
}  # fmt: skip
SAID = {"what": "test", "nested": {"header_sha256": "0" * 64, "list": [1, 2.5, None, "é"]}}


@pytest.fixture
def file(tmp_path):
    save_tensors(tmp_path / "new" / "t.safetensors", TENSORS, SAID)
    return tmp_path / "new" / "t.safetensors"


def refused(path):
    with pytest.raises(SyndistillError) as caught:
        load_tensors(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_there_and_back(file):
    tensors, said = load_tensors(file)
    assert said == SAID
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    tensors["a"][0] = 9  # what was read can be written to
    assert read_sealed(file, tensors=False).metadata == SAID
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_other_programs_read_it(file):
    with safe_open(file, "pt") as found:
        assert json.loads(found.metadata()["nested"]) == SAID["nested"]
        assert torch.equal(found.get_tensor("a"), TENSORS["a"])


def test_the_same_content_is_the_same_file(file):
    before = file.read_bytes()
    save_tensors(file, TENSORS, dict(reversed(SAID.items())))
    assert file.read_bytes() == before


def test_a_changed_bit_in_every_byte(file):
    whole = file.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        with pytest.raises(SyndistillError):
            load_tensors(file)
    file.write_bytes(whole)
    assert load_tensors(file)[1] == SAID


def test_every_length(file):
    whole = file.read_bytes()
    for size in [*range(20), *range(20, len(whole), 7)]:
        file.write_bytes(whole[:size])
        refused(file)
    file.write_bytes(whole + b"\0")
    assert "its tensors are not those that were written" in refused(file)


def test_a_header_alone_is_checked_without_tensors(file):
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole)
    assert read_sealed(file, tensors=False).metadata == SAID
    whole[200] ^= 1
    file.write_bytes(whole)
    with pytest.raises(SyndistillError, match="its header is not the one"):
        read_sealed(file, tensors=False)


def test_files_that_are_none_of_ours(file, tmp_path):
    assert "cannot read" in refused(tmp_path / "nowhere.safetensors")
    assert "cannot read" in refused(tmp_path)
    assert "cannot read" in refused(tmp_path / ("n" * 5000))
    assert "cannot read" in refused(tmp_path / "nul\0l")
    for content in (b"", b"PK\x03\x04" + bytes(2000), (2).to_bytes(8, "little") + b"[]", bytes(100),
                    (4000).to_bytes(8, "little") + b"[" * 4000, b"\xff" * 100):  # fmt: skip
        file.write_bytes(content)
        assert "no whole safetensors file" in refused(file)


def test_a_file_of_an_earlier_version(file, capsys):
    save_file(TENSORS, file, metadata={"what": json.dumps("test")})
    assert f"python -m syndistill.files.tensors {file} adds one" in refused(file)
    assert adopt(file)
    assert load_tensors(file)[1] == {"what": "test"}
    before = file.read_bytes()
    assert not adopt(file)
    assert main([str(file)]) == 0
    assert "they are right" in capsys.readouterr().out
    file.write_bytes(before[:-1])
    assert main([str(file)]) == 2
    assert "damaged" in capsys.readouterr().err
    save_file(TENSORS, file, metadata={"format": "pt"})
    assert main([str(file)]) == 2
    assert "no whole safetensors file of this project" in capsys.readouterr().err


def test_a_failed_write_leaves_the_old_file(file, monkeypatch):
    old = file.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SyndistillError, match=r"cannot write .*No space left on device; nothing was changed"):
        save_tensors(file, {}, {})
    assert file.read_bytes() == old
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    with pytest.raises(SyndistillError, match="cannot write"):
        save_tensors(file / "below" / "t.safetensors", {}, {})


def test_reading_needs_no_pytorch(file):
    script = "import sys; sys.modules['torch'] = None\nfrom pathlib import Path\n"
    script += "from syndistill.files.tensors import read_sealed; print(len(read_sealed(Path(sys.argv[1])).content))"
    done = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == len(file.read_bytes())
