"""The command line as tests call it."""

from syndistill.cli.main import run_app


def run(capsys, *arguments):
    """(exit code, stdout, stderr)"""
    capsys.readouterr()
    code = run_app([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def refused(capsys, *arguments):
    """The one line of an error; nothing else is said and the exit code is 2."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, ""), (out, err)
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    return err


def snapshot(folder):
    """Content by name, of all files below."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
