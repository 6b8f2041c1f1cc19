"""Begin a study in its folder, or join the one that was begun there."""

import dataclasses
from pathlib import Path

from fastnt.errors import UserError
from fastnt.experiments.lab import StudySetup
from fastnt.experiments.study import Study
from fastnt.experiments.study_files import STUDY_FILE, differences, merged, read_study, write_study
from fastnt.files import Busy, locked

_LOCK = ".study.lock"


def begin_study(setup: StudySetup) -> StudySetup:
    """Write study.toml, and return the study with the seeds and settings that it had already.

    A study of which nothing was trained binds nobody: it is replaced.

    Raises:
        UserError: the folder holds another study, or the study names code that is not trusted.
    """
    path, study = setup.folder / STUDY_FILE, setup.study
    with locked(setup.folder / _LOCK):
        if path.exists() and _is_under_way(setup):
            stored = read_study(path)
            _check_same(setup, stored)
            study = merged(study, stored)
        for name in study.named_code():
            setup.trust.check(name, path)
        write_study(path, study)
    return dataclasses.replace(setup, study=study)


def join_again(setup: StudySetup) -> None:
    """Add seeds and settings to study.toml again, which another process may have replaced meanwhile.

    The caller holds a teacher's lock, whose file tells other processes that the study is under way.

    Raises:
        UserError: the folder holds another study by now.
    """
    path = setup.folder / STUDY_FILE
    with locked(setup.folder / _LOCK):
        stored = read_study(path)
        _check_same(setup, stored)
        if (whole := merged(setup.study, stored)) != stored:
            write_study(path, whole)


def _is_under_way(setup: StudySetup) -> bool:
    """Whether a teacher of the study is there or is being trained."""
    if any(any(setup.folder.glob(pattern)) for pattern in ("*.safetensors", "*-checkpoint")):
        return True
    return any(_is_held(lock) for lock in setup.folder.glob(".*.lock") if lock.name != _LOCK)


def _is_held(lock: Path) -> bool:
    try:
        with locked(lock, busy="held"):
            return False
    except Busy:
        return True


def _check_same(setup: StudySetup, stored: Study) -> None:
    if found := differences(setup.study, stored):
        raise UserError(
            f"{setup.folder} holds another study: {'; '.join(found)}; go on with that one "
            f"(fastnt study {setup.folder}), or begin this under another --name"
        )
