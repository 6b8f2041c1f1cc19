"""``fastnt evaluate RUN``: evaluate the saved networks of a run again on the test set."""

import json
from typing import Annotated

import typer

from fastnt.cli import options
from fastnt.output import results_alone


def evaluate(
    run: options.RunFolder,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print the errors as JSON.")] = False,
    trust_code: options.TrustCode = False,
) -> None:
    """Evaluate the saved networks of RUN on the test set again."""
    from fastnt.environment import choose_device
    from fastnt.monitoring.display import name_phase
    from fastnt.runs.networks import evaluate_run

    with results_alone():
        errors = evaluate_run(run, data_dir, choose_device(device), trust_code=trust_code)
    if json_:
        typer.echo(json.dumps({phase: {"test_error": error} for phase, error in errors.items()}))
        return
    for phase, error in errors.items():
        all_teachers = phase == "teacher" and "teacher-1" in errors
        name = "all teachers" if all_teachers else name_phase(phase)
        typer.echo(f"{name}: test error {100 * error:.2f} %")
