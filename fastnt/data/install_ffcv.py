"""Build and install FFCV without OpenCV and libjpeg-turbo: ``python -m fastnt.data.install_ffcv``.

FFCV is published as source, and its extension needs the headers of both to decode JPEG. fastnt stores
raw images, so that small stand-in headers (``ffcv_stub/include``) suffice. CPLUS_INCLUDE_PATH leads the
compiler to them, and a stand-in for the ``pkg-config`` program tells FFCV's setup.py to link libm
alone. FFCV declares requirements that it never imports; pip therefore gets ``--no-deps``.
"""

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from fastnt.errors import UserError

STUB = Path(__file__).parent / "ffcv_stub"
NEEDS = {  # what `import ffcv` needs besides torch and numpy, and the package that has it
    "numba": "numba>=0.60",
    "cv2": "opencv-python-headless>=4.9",
    "PIL": "pillow>=10",
    "tqdm": "tqdm>=4.66",
    "setuptools": "setuptools",  # for distutils, on Python 3.12 and later
}


def install(*, verbose: bool = False) -> str:
    """Install FFCV unless it can be imported; return a sentence that says what was done.

    Raises:
        UserError: pip failed, or FFCV cannot be imported afterwards.
    """
    if platform.system() != "Linux":
        return "FFCV runs on Linux only; here the resident loader serves, nothing to install"
    if importlib.util.find_spec("ffcv") and not import_error():
        return "FFCV is installed"
    missing = [need for module, need in NEEDS.items() if not importlib.util.find_spec(module)]
    if missing:
        _pip(["install", *missing], dict(os.environ), verbose)
    with tempfile.TemporaryDirectory(prefix="fastnt-") as folder:
        program = Path(folder) / "pkg-config"
        program.write_text("#!/bin/sh\necho -lm\n")
        program.chmod(0o755)
        include = [str(STUB / "include"), os.environ.get("CPLUS_INCLUDE_PATH")]
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([folder, os.environ.get("PATH", os.defpath)]),
            "CPLUS_INCLUDE_PATH": os.pathsep.join(filter(None, include)),
        }
        requirements = str(STUB / "requirements.txt")
        options = ["--no-deps", "--no-cache-dir", "--force-reinstall", "--require-hashes"]
        _pip(["install", *options, "-r", requirements], environment, verbose)
    if error := import_error():
        raise UserError(f"FFCV is built but cannot be imported ({error}); use `--loader resident`")
    return "FFCV 1.0.2 is built and installed, for raw images only"


def _pip(arguments: list[str], environment: dict[str, str], verbose: bool) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(
        command,
        env=environment,
        text=True,
        check=False,
        stdout=None if verbose else subprocess.PIPE,
        stderr=None if verbose else subprocess.STDOUT,
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stdout or "").splitlines() if line.strip()]
        telling = [
            line for line in lines if "error:" in line.lower() and "subprocess-exited" not in line
        ]
        reason = (telling or lines or ["see above"])[0]
        raise UserError(
            f"FFCV could not be installed ({reason}); it needs a C++ compiler and the package "
            "index, `python -m fastnt.data.install_ffcv -v` shows all, and `--loader resident` "
            "works without FFCV"
        )


def import_error() -> str:
    """Return why a new interpreter cannot import FFCV; empty if it can."""
    command = [sys.executable, "-c", "import ffcv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["it failed"])[-1] if done.returncode else ""


def main() -> int:
    """Run ``install``; return the exit code, 2 if it failed."""
    parser = argparse.ArgumentParser(prog="python -m fastnt.data.install_ffcv")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what pip prints")
    try:
        print(install(verbose=parser.parse_args().verbose))
    except UserError as error:
        print(f"fastnt: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
