"""The command line: ``fastnt train``, ``fastnt report`` and so on, one file a subcommand."""

import errno
import logging
import os
import re
import shlex
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.exceptions import Abort, TyperException

import fastnt
from fastnt.cli.bench import bench
from fastnt.cli.doctor import doctor
from fastnt.cli.evaluate import evaluate
from fastnt.cli.export import export
from fastnt.cli.given_once import GivenOnce
from fastnt.cli.networks import networks
from fastnt.cli.predict import predict
from fastnt.cli.prepare import prepare
from fastnt.cli.recipe import recipe
from fastnt.cli.report import report
from fastnt.cli.study import study
from fastnt.cli.train import train
from fastnt.errors import Interrupted, UserError
from fastnt.output import reader_gone
from fastnt.paths import is_text

app = typer.Typer(
    name="fastnt",
    help="Distil a small network from a noisy teacher (Sau & Balasubramanian 2016).",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
_COMMANDS = (
    train,
    study,
    prepare,
    recipe,
    networks,
    evaluate,
    predict,
    report,
    export,
    bench,
    doctor,
)
for command in _COMMANDS:
    app.command(cls=GivenOnce)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastnt {fastnt.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 bad input or usage, 1 a bug, 130 interrupted."""
    typed = sys.argv[1:] if arguments is None else arguments
    arguments = [_at_home(text) for text in typed]
    # It speaks of its fonts and of a home folder that it cannot write to.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    for text in arguments:
        if "\0" in text or not is_text(text):
            _fail(
                f"{text!r} is no name that files may have (a NUL, or no UTF-8); rename or mend it"
            )
    command = typer.main.get_command(app)
    _hide_types_of_flags(command)
    try:
        line = shlex.join(["fastnt", *typed])
        code = command.main(arguments or ["--help"], "fastnt", standalone_mode=False, obj=line)
    except TyperException as error:
        _fail(_usage_sentence(error))
    except UserError as error:
        _fail(str(error))
    except (MemoryError, ImportError, OSError, RuntimeError) as error:
        if _is_short_of_memory(error):
            what = str(error).partition("\n")[0] or type(error).__name__
            _fail(
                f"there is too little memory ({what}); take a smaller network or batch, or raise the "
                "limit, if there is one (ulimit -v)"
            )
        if not isinstance(error, OSError) or error.filename is None:  # no file of the user's: a bug
            raise
        _fail(f"{error.filename}: {error.strerror}; check the path and who may read or write it")
    except Interrupted as stop:
        _interrupted(f": {stop}")
    except Abort:
        _interrupted()
    if code == 130:  # a KeyboardInterrupt, which Click turned into this code
        _interrupted()
    sys.exit(code if isinstance(code, int) else 0)


def _usage_sentence(error: Any) -> str:
    """Say what is wrong with the command line; where a key is no option, name ``--set``."""
    context = getattr(error, "ctx", None)
    options = {name for option in context.command.params for name in option.opts} if context else ()
    unknown = getattr(error, "option_name", None)
    if unknown is not None and unknown not in options and "--set" in options:
        from fastnt.config import FIELDS

        key = unknown.strip("-").replace("-", "_")
        if key in FIELDS:
            return (
                f"there is no option {unknown}; set this value of the recipe by --set {key}=VALUE"
            )
    # Pydantic's words, which say nothing to a user.
    text = error.format_message().rstrip(".").replace("Value error, ", "")
    text = re.sub(", unable to parse.*", "", text).replace("Input should be", "it must be")
    return f"{text}; see {context.command_path if context else 'fastnt'} --help"


def _hide_types_of_flags(command: Any, parent: Any = None) -> None:
    """Show no type beside flags in the help: "<bool>" would only take width from the text."""
    context = command.context_class(command, parent=parent, **command.context_settings)
    for option in command.get_params(context):  # --help included
        if getattr(option, "is_bool_flag", False):
            option.metavar = ""
    for subcommand in getattr(command, "commands", {}).values():
        _hide_types_of_flags(subcommand, context)


def _at_home(text: str) -> str:
    """Replace a ``~`` at the beginning of a value by the home folder, as in ``--option=~/a``."""
    option, equals, value = text.rpartition("=")
    if not value.startswith("~"):
        return text
    return f"{option}{equals}{os.path.expanduser(value)}"  # noqa: PTH111  # an unknown ~user stays


def _is_short_of_memory(error: BaseException) -> bool:
    """Tell whether memory was refused: to Python, to the loader of a library, or to torch."""
    if isinstance(error, (ImportError, RuntimeError)):
        words = ("map segment", "allocate memory", "out of memory")
        return any(text in str(error) for text in words)
    return isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM


def _interrupted(how: str = "") -> NoReturn:
    if how or not reader_gone():  # after ``| head`` nothing is amiss
        print(f"fastnt: interrupted{how}", file=sys.stderr)
    sys.exit(130)


def _fail(sentence: str) -> NoReturn:
    print(f"fastnt: error: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(2)
