"""How a network is computed: everything that decides the bits of a result, except the recipe."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import torch
from torch import nn

from fastnt.data.loaders import LoaderKind
from fastnt.distributed.ranks import ALONE, Ranks
from fastnt.errors import UserError

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Precision:
    """The type of matrix products and convolutions; weights and losses stay float32."""

    dtype: torch.dtype = torch.float32  # or bfloat16, float16

    @property
    def name(self) -> str:
        """The type's name: float32, bfloat16 or float16."""
        return str(self.dtype).removeprefix("torch.")

    def autocast(self, device: torch.device) -> Any:
        """Return the context in which a forward pass runs."""
        mixed = self.dtype != torch.float32
        # Cast weights are not cached: each is used once a pass, and none may outlive a CUDA graph.
        return torch.autocast(
            device.type, self.dtype if mixed else None, enabled=mixed, cache_enabled=False
        )

    @property
    def scales(self) -> bool:
        """Whether the loss must be scaled, so that small gradients do not become zero."""
        return self.dtype == torch.float16


FLOAT32 = Precision()


@dataclass(frozen=True)
class Compute:
    """The device and the arithmetic; ``describe`` returns everything that decides the bits."""

    device: torch.device
    precision: Precision = FLOAT32
    compile: bool = False  # torch.compile
    loader: LoaderKind = "auto"  # decides no bit: both loaders give the same batches
    graph: bool = (
        True  # capture the steps as CUDA graphs, where that is possible; it decides no bit
    )
    ranks: Ranks = ALONE
    threads: int = field(default_factory=torch.get_num_threads)  # of torch, on a CPU
    deterministic: bool = field(default_factory=torch.are_deterministic_algorithms_enabled)

    def describe(self) -> dict[str, Any]:
        """Return what decides the bits, ready for JSON: for environment.json and for keys."""
        return {
            "device": self.device.type,
            "precision": self.precision.name,
            "compile": self.compile,
            "deterministic": self.deterministic,
            "ranks": self.ranks.world_size,
            "threads": self.threads if self.device.type == "cpu" else None,
        }


def choose_compute(
    device: torch.device,
    *,
    amp: bool | None = None,
    compile: bool | None = None,
    loader: LoaderKind = "auto",
    graph: bool = True,
    ranks: Ranks = ALONE,
) -> Compute:
    """Return how to compute on ``device``.

    Args:
        device: of this process.
        amp: mixed precision; None: if the device has it in hardware.
        compile: torch.compile the networks; None: on a GPU.
        loader: as for :func:`fastnt.data.loaders.make_loader`.
        graph: capture training steps as CUDA graphs, where that is possible.
        ranks: this process among those that train together.

    Raises:
        UserError: torch's default dtype is not float32.
    """
    if torch.get_default_dtype() != torch.float32:
        raise UserError(
            f"torch's default type is {torch.get_default_dtype()}, and networks are trained in float32; "
            "call torch.set_default_dtype(torch.float32) first"
        )
    compiled = device.type == "cuda" if compile is None else compile
    return Compute(device, choose_precision(device, amp), compiled, loader, graph, ranks)


def choose_precision(device: torch.device, amp: bool | None) -> Precision:
    """Return the precision for ``--amp`` (True), ``--no-amp`` (False) or neither (None).

    It is bfloat16 where the device has instructions for it. A GPU without them takes float16. A CPU
    without them takes float32, unless mixed precision is asked for.
    """
    if amp is False:
        return FLOAT32
    if device.type == "cuda":
        return Precision(torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16)
    fast = device.type == "cpu" and _cpu_has_bfloat16()
    return Precision(torch.bfloat16) if amp or fast else FLOAT32


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def exact_float32() -> Iterator[None]:
    """Convolve and multiply float32 in float32, whatever the program allows elsewhere.

    By default cuDNN rounds the factors of a convolution to TF32's 11 bits, and a program may allow such
    rounding for products of matrices too. Also a decorator. Where the program has set the precision by
    operation, that is left as it is.
    """
    with ExitStack() as restored:
        cudnn: Any = torch.backends.cudnn
        with suppress(RuntimeError):  # torch does not mix both ways of setting it
            restored.callback(setattr, cudnn, "allow_tf32", cudnn.allow_tf32)
            cudnn.allow_tf32 = False
        with suppress(RuntimeError):
            restored.callback(
                torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()
            )
            torch.set_float32_matmul_precision("highest")
        yield


def compile_alone(module: nn.Module) -> Callable[..., Any]:
    """Compile ``module``'s forward pass under a code object of its own.

    Dynamo limits how often it compiles one code object, by default to eight times. All networks have the
    code object of ``Model.forward``, so that a few of them would reach the limit. Each batch size is
    compiled separately: else a second size would make the code general, in this network and, since Dynamo
    remembers lines of code, in later ones.
    """

    def forward(*inputs: Any) -> Any:
        return module(*inputs)

    own = FunctionType(forward.__code__.replace(), globals(), closure=forward.__closure__)
    compiled: Callable[..., Any] = torch.compile(own, dynamic=False)
    return compiled
