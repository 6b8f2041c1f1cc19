"""``fastnt train``: a teacher and its two students, end to end."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fastnt.cli import options
from fastnt.cli.options import WHAT, WHERE, parse_assignments, teacher_option


def train(
    context: typer.Context,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    runs_dir: Annotated[
        Path, typer.Option(help="Folder that holds the runs.", rich_help_panel=WHERE)
    ] = Path("runs"),
    run: Annotated[
        str | None,
        typer.Option(help="Name of this run's folder.", rich_help_panel=WHERE, metavar="NAME"),
    ] = None,
    device: options.Device = "auto",
    loader: Annotated[
        Literal["auto", "ffcv", "resident"],
        typer.Option(
            help="auto; ffcv streams from disk; resident keeps the images on the device.",
            metavar="WORD",
            rich_help_panel=WHERE,
        ),
    ] = "auto",
    amp: Annotated[
        bool | None,
        typer.Option(
            "--amp/--no-amp",
            help="Mixed precision; by default where the device has it.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    compile_: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="torch.compile the networks; by default on a GPU.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    no_graph: options.NoGraph = False,
    deterministic: options.Deterministic = False,
    config: options.Config = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Probability that a sample's targets are perturbed.", rich_help_panel=WHAT
        ),
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(
            help="Standard deviation of the noise, or LOW:HIGH to draw it anew each step.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    noise: Annotated[
        Literal["logit", "shared"] | None,
        typer.Option(
            help="logit: for each its own; shared: one for the batch.",
            metavar="WORD",
            rich_help_panel=WHAT,
        ),
    ] = None,
    perturb: Annotated[
        Literal["teacher", "student"] | None,
        typer.Option(
            help="Whose logits carry the noise, teacher or student.",
            metavar="WORD",
            rich_help_panel=WHAT,
        ),
    ] = None,
    frozen: Annotated[
        bool | None,
        typer.Option("--frozen", help="A sample keeps its noise.", rich_help_panel=WHAT),
    ] = None,
    epochs: options.Epochs = None,
    teacher_epochs: Annotated[
        int | None, typer.Option(help="Epochs of the teacher.", rich_help_panel=WHAT)
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Samples in a mini-batch, of all ranks.", rich_help_panel=WHAT),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate of the students.", rich_help_panel=WHAT)
    ] = None,
    train_samples: Annotated[
        int | None,
        typer.Option(help="Use the first so many training images; 0: all.", rich_help_panel=WHAT),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random.", rich_help_panel=WHAT)
    ] = None,
    teacher: Annotated[
        list[str] | None, teacher_option("; given more than once, their mean")
    ] = None,
    student: options.Student = None,
    set_: options.Assignments = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Show where a step's time goes, and write trace.json (Chrome's format).",
        ),
    ] = False,
    log: options.Log = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run NAME, or with the newest that did not finish.",
            rich_help_panel=WHERE,
        ),
    ] = False,
    only: options.Only = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Prepare the data, say what would be done; train nothing."),
    ] = False,
    trust_code: options.TrustCode = False,
    json_: Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the final table.")] = False,
) -> None:
    """Train a teacher, a student on its clean logits and a student on its noisy logits.

    Without arguments it runs offline on scikit-learn's digits in under two minutes.
    """
    from fastnt.cli.plan import look, print_plan
    from fastnt.cli.table import print_profile, print_summary
    from fastnt.console import make_console
    from fastnt.distributed.ranks import Device, join_ranks
    from fastnt.environment import keep_freed_memory, use_deterministic_algorithms
    from fastnt.errors import warn
    from fastnt.monitoring.display import Several, choose_progress
    from fastnt.output import results_alone
    from fastnt.recipe_files import absolute_teacher, load_recipe
    from fastnt.recipe_rules import idle_values
    from fastnt.report.curves import plot_curves
    from fastnt.report.loggers import open_logger
    from fastnt.runs.resume import Plan, new_run, resumed_run
    from fastnt.runs.run import Run
    from fastnt.training.compute import choose_compute
    from fastnt.trust import Trust

    if teacher is not None:
        teacher = [absolute_teacher(text) for text in teacher]
    options.refuse_json_of_a_plan(dry_run=dry_run, json=json_)
    flags: dict[str, Any] = {
        "alpha": alpha,
        "sigma": sigma,
        "noise": noise,
        "perturb": perturb,
        "frozen": frozen,
        "epochs": epochs,
        "teacher_epochs": teacher_epochs,
        "batch_size": batch_size,
        "lr": lr,
        "train_samples": train_samples,
        "seed": seed,
        "teacher": teacher,
        "student_network": student,
    }
    repeat_on_resume = {
        "--no-graph": no_graph,
        "--deterministic": deterministic,
        "--profile": profile,
    }
    repeat_on_resume |= {f"--log={log}": log is not None}
    given = {key: value for key, value in flags.items() if value is not None}
    taken = given if dataset is None else given | {"dataset": dataset}
    overrides = parse_assignments(set_ or [], taken) | given
    trust = Trust.of(trust_code, overrides.values())
    plans: list[Plan] = []
    keep_freed_memory()
    if deterministic:
        use_deterministic_algorithms()

    def plan_run() -> Device:
        """Plan the run and return its device: every rank does so, once they can reach each other."""
        if resume:
            plan = resumed_run(
                runs_dir,
                run,
                dataset=dataset,
                config=config,
                overrides=overrides,
                only=only,
                trust=trust,
            )
        else:
            recipe = load_recipe(dataset, config, overrides, trust=trust)
            plan = new_run(recipe, runs_dir, run, only)
        plans.append(plan)
        return plan.device(device)

    with join_ranks(plan_run) as (ranks, chosen_device):
        plan = plans[0].agreed(ranks)
        if ranks.is_rank_0 and (idle := idle_values(plan.recipe, overrides, plan.only)):
            warn(idle)
        asked = choose_compute(
            chosen_device,
            amp=amp,
            compile=compile_,
            loader=loader,
            graph=not no_graph,
            ranks=ranks,
        )
        silent = quiet or json_ or not ranks.is_rank_0
        finished = plan.resume and plan.folder.finished
        if finished and ranks.is_rank_0:
            what = "nothing would be trained" if dry_run else "this is what it found"
            typer.echo(f"{plan.folder.path} is finished; {what}", err=True)
        if dry_run:
            if ranks.is_rank_0 and not finished:
                compute = plan.compute(asked, amp=amp, compile=compile_)
                print_plan(plan, compute, look(plan, compute, data_dir, trust), make_console())
            return
        with ExitStack() as stack:
            progress = stack.enter_context(choose_progress(quiet=silent))
            if log is not None and ranks.is_rank_0:
                logger = open_logger(log, plan.folder.path, asdict(plan.recipe), stack)
                progress = Several(progress, logger)
            current = Run(
                plan,
                plan.compute(asked, amp=amp, compile=compile_),
                progress,
                data_dir=data_dir,
                quiet=silent,
                profiled=profile,
                command_line=context.obj or "",
                flags=tuple(flag for flag, given in repeat_on_resume.items() if given),
                trust=trust,
            )
            if not silent:
                current.before_training = lambda ahead: print_plan(
                    plan, current.compute, ahead, make_console(stderr=True)
                )
            with results_alone():
                summary = current.execute(plot_curves)
    if not ranks.is_rank_0:
        return
    if json_:
        typer.echo(json.dumps(summary, indent=2))
        return
    print_summary(summary, current.timings, plan.folder.path)
    if current.profile:
        print_profile(current.profile, "a step of the noisy student")
    elif profile:
        why = "took too few steps here to time" if "noisy" in plan.students else "is not trained"
        typer.echo(f"--profile: the noisy student {why}", err=True)
