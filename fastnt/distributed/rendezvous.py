"""How the ranks that torchrun started find each other, and what is said when they do not."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

from fastnt.errors import UserError, warn
from fastnt.factory import in_short

PATIENCE = 10.0  # seconds after which a rank says for whom it waits
_ALONE = "or train in one process: env -u RANK -u WORLD_SIZE fastnt ..."


def ranks_environment() -> tuple[int, int, int]:
    """Return torchrun's rank, number of ranks, and rank on this machine."""
    texts = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if not all(text.isdecimal() for text in texts):
        return 0, 1, 0
    rank, world, local_rank = map(int, texts)
    return rank, world, local_rank


def meet(rank: int, world: int) -> Any:
    """Return the store in which all ranks have met; say on stderr for whom this one waits long.

    Raises:
        UserError: the environment is none of torchrun's, or rank 0 cannot be reached.
    """
    from torch.distributed.rendezvous import rendezvous

    place = _place_of_rank_0(rank, world)
    whom = f"rank 0 at {place}" if rank else f"the other {world - 1} ranks, at {place}"
    told = threading.Timer(PATIENCE, warn, [f"rank {rank} of {world} waits for {whom}"])
    told.daemon = True
    told.start()
    try:
        store, *_ = next(rendezvous("env://", rank, world))
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"rank {rank} of {world} cannot meet {whom} ({in_short(error)}); start all ranks with "
            f"torchrun and a free port, {_ALONE}"
        ) from error
    finally:
        told.cancel()
    return store


def _place_of_rank_0(rank: int, world: int) -> str:
    """Return address and port of rank 0.

    Raises:
        UserError: they are missing or no such, or there is no such rank, as when a scheduler left a
            part of torchrun's variables.
    """
    address, port = (os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    wrong = ""
    if rank >= world:
        wrong = f"RANK is {rank} and WORLD_SIZE {world}"
    elif not address:
        wrong = "RANK and WORLD_SIZE are set, and MASTER_ADDR is not"
    elif not port.isdecimal() or not 1 <= int(port) <= 65535:
        wrong = f"MASTER_PORT is {port!r}"
    if wrong:
        raise UserError(f"{wrong}; start all ranks with torchrun, {_ALONE}")
    return f"{address}:{port}"


@contextmanager
def silent_torch() -> Iterator[None]:
    """Drop what torch's C++ prints in the block: where a store is gone, its whole stack."""
    try:
        stderr = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with Path(os.devnull).open("wb") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def lost_a_rank(error: BaseException) -> bool:
    """Tell whether torch lost another rank; gloo says so in a plain RuntimeError.

    A signal of torchrun's may have come while that error was on its way.
    """
    lost = ("gloo", "Connection closed", "Connection reset", "Broken pipe")
    if isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and any(words in str(error) for words in lost)
    ):
        return True
    return error.__context__ is not None and lost_a_rank(error.__context__)
