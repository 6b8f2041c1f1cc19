"""The ranks of torchrun: processes that train one network together, each on a part of every batch."""

import functools
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastnt.distributed.rendezvous import lost_a_rank, meet, ranks_environment, silent_torch
from fastnt.environment import choose_device
from fastnt.errors import Interrupted, UserError, warn
from fastnt.factory import in_short

T = TypeVar("T")
Device = Literal["auto", "cpu", "cuda"]
BARRIER_TIMEOUT = timedelta(days=1)  # other ranks wait while one prepares the data
GRACE = 5.0  # a rank that fails waits so many seconds for the first one, which prints its error
_FAILURES = "fastnt/failures"  # how many ranks have failed, in the store


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks that train together. A single rank never communicates.

    Rank 0 alone prints and writes files.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # this rank's number on its machine
    # A gloo group with a long timeout for barriers and values, since rank 0 may be preparing data.
    patient_group: Any = None

    @property
    def is_rank_0(self) -> bool:
        """Whether this is rank 0, which writes files and shows progress."""
        return self.rank == 0

    @contextmanager
    def local_first(self) -> Iterator[None]:
        """Run the block on the first rank of each machine, and then on the others.

        The others find the files that the first made. The block must not communicate.
        """
        if self.local_rank > 0:
            self.barrier()
        yield
        if self.local_rank == 0:
            self.barrier()

    def barrier(self) -> None:
        """Wait until all ranks have reached this call."""
        if self.world_size > 1:
            dist.barrier(self.patient_group)

    def broadcast_value(self, value: T) -> T:
        """Return rank 0's ``value``, a JSON value, on every rank."""
        if self.world_size == 1:
            return value
        text = torch.frombuffer(bytearray(json.dumps(value), "utf-8"), dtype=torch.uint8)
        length = torch.tensor(len(text), device="cpu")
        dist.broadcast(length, 0, self.patient_group)
        if not self.is_rank_0:
            text = torch.empty(int(length), dtype=torch.uint8, device="cpu")
        dist.broadcast(text, 0, self.patient_group)
        received: T = json.loads(bytes(text.tolist()))
        return received

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Set ``tensors``, of equal shapes on all ranks, to rank 0's, without a host sync."""
        if self.world_size > 1:
            for tensor in tensors:
                same = tensor.detach().contiguous()  # memory is sent as it is, whatever the strides
                dist.broadcast(same, 0)
                tensor.detach().copy_(same)

    def all_reduce_sum(self, tensor: Tensor) -> None:
        """Set ``tensor`` to its sum over the ranks, without a host sync."""
        if self.world_size > 1:
            dist.all_reduce(tensor)

    def all_reduce_min(self, tensor: Tensor) -> None:
        """Set ``tensor`` to its minimum over the ranks, without a host sync."""
        if self.world_size > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MIN)

    def replicate(self, model: nn.Module, *, uses_all: bool) -> nn.Module:
        """Return ``model`` with gradients averaged over the ranks; a single rank gets it as it is.

        ``uses_all`` tells that each forward pass uses all parameters; else that costs a search.
        """
        if self.world_size == 1:
            return model
        if self.is_rank_0 and any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()
        ):
            _warn_of_batch_norm()
        return nn.parallel.DistributedDataParallel(
            model, gradient_as_bucket_view=True, find_unused_parameters=not uses_all
        )

    def seed(self, seed: int) -> int:
        """Return this rank's seed for dropout; rank 0 has ``seed`` itself."""
        return (seed + self.rank * 0x9E3779B97F4A7C15) % 2**64


ALONE = Ranks()


@contextmanager
def join_ranks(choose: Callable[[], Device]) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the ranks that torchrun started; yield this rank and its device.

    ``choose`` returns the device that the user asks for. It is called when the ranks can
    reach each other, so that an error in it on one rank ends all ranks.

    Without torchrun's environment, or with one rank, this process is alone.

    An error on one rank ends them all. The first rank that fails raises its error. The others fail
    later, for want of the first or for the same reason; they print nothing and exit with code 2.

    Raises:
        UserError: a GPU is asked for, and there is none for this rank; or another rank died.
        Interrupted: torchrun stops this rank.
        SystemExit: another rank failed before this one.
    """
    rank, world, local_rank = ranks_environment()
    if world == 1:
        yield ALONE, choose_device(choose())
        return

    def stop(*_: Any) -> None:
        raise Interrupted(
            f"rank {rank} is stopped, as all ranks are when one of them dies or a signal comes; when all "
            "can run again, go on with --resume"
        )

    store, before = meet(rank, world), signal.signal(signal.SIGTERM, stop)
    try:
        device = _device_of_rank(choose_device(choose()), local_rank)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world)
        patient_group = dist.new_group(backend="gloo", timeout=BARRIER_TIMEOUT)
        yield Ranks(rank, world, local_rank, patient_group), device
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from torchrun; what happened is told first
        silent = _another_failed_first(store, error)  # asked before this rank's connections break
        _leave()
        if silent:
            # torchrun kills all ranks when one exits, but the first must print its error.
            time.sleep(GRACE)
            sys.exit(2)
        if lost_a_rank(error):
            raise UserError(
                f"rank {rank} lost another rank, which died or cannot be reached ({in_short(error)}); "
                "when all ranks can run again, go on with --resume"
            ) from error
        if rank == 0:
            _wait_for_the_others_to_fail(store, world)
        if rank > 0 and isinstance(error, UserError):  # the first error may be on another machine
            raise UserError(f"rank {rank}: {error}") from error
        raise
    _leave()
    signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _another_failed_first(store: Any, error: BaseException) -> bool:
    try:
        with silent_torch():
            failures = store.add(_FAILURES, 1)
    except RuntimeError:  # the store was killed with rank 0, which therefore said nothing
        return False
    return bool(failures > 1 and isinstance(error, (Exception, Interrupted)))


def _wait_for_the_others_to_fail(store: Any, world: int) -> None:
    """Keep the store, which may be part of this process, until the others have asked who failed first."""
    with suppress(RuntimeError):
        until = time.monotonic() + GRACE
        while store.add(_FAILURES, 0) < world and time.monotonic() < until:
            time.sleep(0.02)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _device_of_rank(device: torch.device, local_rank: int) -> torch.device:
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise UserError(
            f"there are more ranks here than the {count} GPUs that torch sees; start torchrun with "
            f"--nproc-per-node {count}, or use --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


@functools.cache
def _warn_of_batch_norm() -> None:
    warn(
        "each rank normalises by the statistics of its own part of the batch "
        "(BatchNorm), and the first rank's are kept: results depend on the number of ranks"
    )
