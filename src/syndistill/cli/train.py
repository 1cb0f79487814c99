"""The verb `train`."""

from __future__ import annotations

from syndistill.cli.shared import Changes, Out, Run, resumable


def train(run: Run, out: Out, set_: Changes = None) -> None:
    """Train a Teacher on labels of fresh simulated shots.

    Killed or interrupted, the same command goes on from the last checkpoint, to the bit. The folder then holds
    run.json, metrics.jsonl, state.safetensors and teacher.safetensors (the averaged weights).

    [bold]Example:[/bold] syndistill train teacher-tiny --out runs/teacher-tiny --set training.steps=200
    """
    from syndistill.runs.choose import chosen_run
    from syndistill.runs.console import terminal_reporter
    from syndistill.training.run import TeacherRun, train_teacher

    chosen = chosen_run(TeacherRun, run, set_ or [])
    how = f"the same command goes on from the last checkpoint in {out}"
    with resumable(how), terminal_reporter() as reporter:
        path = train_teacher(chosen, out, reporter)
    print(path)
