"""The Triton kernels compiled ahead of time for GPUs that need not be here, and their code read."""

import importlib

import pytest
import torch

import fastnt
from fastnt.kernels.noisy_l2 import op
from fastnt.kernels.noisy_l2.signature import Options, Tensors

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
FEW, MANY, HUGE = (1_000_000, 10), (1_000_000, 100), (8192, 32768)
SHAPES = [(512, 10), FEW, (1_000_000, 33), MANY, (100_000, 1000), (256, 21841), HUGE]


@pytest.fixture
def count(machine_code):
    """benchmarks/count.py's function: what a launch costs by its machine code."""
    return importlib.import_module("count").count


def has_no_local_memory(counted):
    return all(
        launch.code.local_bytes == 0
        and launch.code.count("LDL") + launch.code.count("STL") + launch.code.count("scratch_") == 0
        for launch in counted.launches
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [MANY, HUGE], ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_no_machine_spills(count, target, shape, dtype):
    assert has_no_local_memory(count(target, *shape, dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [*SHAPES, (300, 4095)], ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_no_machine_spills_at_any_shape(count, target, shape, dtype):
    assert has_no_local_memory(count(target, *shape, dtype))


@pytest.mark.parametrize(
    "options",
    [
        Options(True, True, "none", torch.float16),
        Options(False, False, "mean", None),
        Options(False, True, "sum", torch.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [FEW, HUGE], ids=str)
def test_no_option_spills(count, shape, options):
    assert has_no_local_memory(count("sm_90", *shape, "float16", options, high=True))
    if options.grad_dtype is None:
        assert has_no_local_memory(count("sm_90", *shape, "float32", options, numbers=True))


# Instructions of an element on sm_90 at alpha 1, by the Triton that is installed. An H100's memory
# moves 12 bytes a 95 instructions, 6 a 47; an H200's 66 and 33: benchmarks/NOTES.md.
@pytest.mark.parametrize(
    ("shape", "dtype", "most"),
    [
        (FEW, "float32", 40),
        (FEW, "bfloat16", 44),
        ((1_000_000, 33), "float32", 48),
        (MANY, "float32", 34),
        (MANY, "bfloat16", 34),
        ((1_000_000, 257), "float32", 40),
        ((256, 21841), "float32", 42),
        ((100_000, 1000), "float32", 30),
        ((100_000, 1000), "bfloat16", 30),
        (HUGE, "float32", 32),
        (HUGE, "bfloat16", 35),
    ],
    ids=str,
)
def test_instructions_of_an_element(count, shape, dtype, most):
    assert count("sm_90", *shape, dtype).of_an_element <= most


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_small_batch_is_one_launch_of_few_instructions(count, dtype):
    counted = count("sm_90", 512, 10, dtype)
    assert len(counted.launches) == 1
    assert counted.of_a_warp <= 360
    assert counted.kernel.code.registers <= 64


@pytest.mark.parametrize(
    ("shape", "dtype", "width"),
    [
        (FEW, "float32", ".64"),
        (MANY, "float32", ".128"),
        (MANY, "bfloat16", ".64"),
        ((100_000, 1000), "float32", ".128"),
        ((100_000, 1000), "bfloat16", ".128"),
        (HUGE, "float32", ".128"),
        (HUGE, "bfloat16", ".128"),
    ],
    ids=str,
)
def test_logits_are_loaded_as_wide_as_rows_are_aligned(count, shape, dtype, width):
    code = count("sm_90", *shape, dtype).kernel.code
    inside = [code.instructions[i] for i in code.main_loop]
    stores = [i for i in inside if i.startswith("STG")]
    loads = [i for i in inside if i.startswith("LDG")]
    rows = [i for i in loads if not i.endswith(width)]  # the index
    assert stores
    assert all(i.endswith(width) for i in stores)
    assert len(loads) - len(rows) == 2 * len(stores)
    assert len(rows) <= 1
    # The normals stay in the thread that draws them.
    assert not [i for i in inside if i.startswith(("SHFL", "STS", "LDS", "BAR"))]


def test_scaling_the_gradient_is_one_launch_without_local_memory(machine_code):
    from fastnt.kernels.noisy_l2 import triton

    for target in ("sm_90", "gfx942"):
        for kind, other in ((torch.float32, torch.float32), (torch.float32, torch.float16)):
            with machine_code.stand_in(target) as gpu:
                triton.multiply(torch.empty(1, 4096, 1000, dtype=kind), torch.ones(()), other)
            (launch,) = gpu.launches
            assert launch.code.local_bytes == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="test_noisy_l2_gpu.py runs what is compiled")
@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1024, 10), (1, 17, 1000)], ids=str)
def test_launches_compile_and_fit_the_machine(stand_in_gpu, shape, numbers):
    """As Triton launches them: it makes constants of ones."""
    from fastnt.kernels.noisy_l2 import triton

    def launch(logits, values):
        tensors = Tensors(*logits, *values, None)
        triton.value_and_grad(tensors, Options(False, False, "batchmean", torch.float32))

    values = 1, 1, 1, 1, 1
    if not numbers:
        values = (*torch.ones(3, shape[0]), *torch.ones(2, shape[0], dtype=torch.int64))
    launch(torch.empty(2, *shape), values)
    if numbers:
        transposed = torch.empty(2, *shape).mT.contiguous().mT
        launch(transposed, (0.5, 0.1, 0.6, 2**64 - 1, 2**32 - 1))
    assert stand_in_gpu.launches
    warp_size = stand_in_gpu.target.warp_size
    assert all(launch.warps * warp_size <= 1024 for launch in stand_in_gpu.launches)


def given_kinds():
    """Launches no two of which may share what the first has found."""
    student, teacher = torch.randn(2, 1, 24, 16)
    floats, longs = torch.ones(1), torch.ones(1, dtype=torch.int64)
    tensors = Tensors(student, teacher, floats, floats, None, longs, longs, None)
    index, options = torch.arange(48), Options(False, False, "batchmean", torch.float32)
    offset = torch.empty(24 * 16 + 1)[1:].view(1, 24, 16)
    changes = [
        {},
        {"student": student[0], "teacher": teacher[0]},
        {"student": student.bfloat16()},
        {"teacher": teacher.half()},
        {"student": offset},
        {"teacher": offset},
        {"student": student.mT.contiguous().mT},
        {"teacher": torch.randn(1, 24, 20)[..., :16]},
        {"student": student.repeat(3, 1, 1), "alpha": torch.ones(3)},
        {"student": student[:, :23], "teacher": teacher[:, :23]},
        {"alpha": 0.5},
        {"sigma": 0.5},
        {"sigma_high": floats},
        {"sigma_high": 0.9},
        {"seed": 3},
        {"seed": 2**40},
        {"step": 2**32 - 1},
        {"index": index[:24]},
        {"index": index[::2]},
        {"grad_scale": torch.tensor(2.0)},
    ]
    of_options = [
        {"shared": True},
        {"perturb_student": True},
        {"reduction": "none"},
        {"grad_dtype": None},
        {"grad_dtype": torch.float16},
        {"teacher_id": 3},
    ]
    kinds = [(tensors._replace(**change), options) for change in changes]
    return kinds + [(tensors, options._replace(**change)) for change in of_options]


@pytest.mark.slow
def test_what_is_launched_again_is_what_would_be_launched(machine_code):
    """The same machine code, programs and arguments, but for the memory of the results."""
    from fastnt.kernels.noisy_l2 import launched, triton

    def what(launch):
        arguments = dict(launch.arguments)
        for name, given in launch.arguments.items():
            if name in ("grad", "sums", "loss", "tickets"):
                arguments[name] = given.dtype, given.shape, given.stride()
            elif isinstance(given, torch.Tensor):
                arguments[name] = given.dtype, given.data_ptr()
        return launch.files, launch.programs, arguments

    kinds = given_kinds()
    with machine_code.stand_in("sm_90") as gpu:
        fresh = []
        for tensors, options in kinds:
            launched._launched.clear()
            fresh.append(triton.value_and_grad(tensors, options))
        for _ in range(2):
            results = [triton.value_and_grad(*kind) for kind in kinds]
        assert len(launched._launched) == len(kinds)
    count = len(kinds)
    assert len(gpu.launches) == 3 * count
    for first, again in zip(gpu.launches[:count], gpu.launches[2 * count :], strict=True):
        assert what(first) == what(again)
    for (loss, grad), (again, other) in zip(fresh, results, strict=True):
        assert loss.shape == again.shape
        assert (grad is None and other is None) or (
            grad.shape == other.shape and grad.stride() == other.stride()
        )


def test_kinds_of_launches_are_not_kept_without_end(machine_code, monkeypatch):
    from fastnt.kernels.noisy_l2 import launched, triton

    monkeypatch.setattr(launched, "MOST", 2)
    with machine_code.stand_in("sm_90"):
        for samples in range(1, 5):
            tensors = Tensors(*torch.empty(2, 1, samples, 16), 0.5, 0.6, None, 1, 1, None)
            triton.value_and_grad(tensors, Options(False, False, "sum", torch.float32))
            assert 0 < len(launched._launched) <= 2


def test_a_captured_launch_finds_the_kernel_compiled(machine_code, monkeypatch):
    """The cells of a graph lie at any address; Triton's code must not differ by it."""
    from fastnt.kernels.noisy_l2 import launched, tickets, triton

    cells = torch.zeros(8, dtype=torch.int32)
    starts = iter((0, 1, 2, 3))
    monkeypatch.setattr(tickets, "take", lambda count, device: cells[next(starts) :])
    student, teacher = torch.empty(2, 1, 512, 10)
    with machine_code.stand_in("sm_90") as gpu:
        for shift in range(2):
            launched._launched.clear()  # a graph may be captured after others were kept
            rows, scale = torch.arange(520)[shift:], torch.ones(3)[shift]
            tensors = Tensors(student, teacher, 0.5, 0.6, None, 1, 1, rows[:512], scale)
            triton.launch(tensors, Options(False, False, "sum", torch.float32))
    assert [launch.arguments["tickets"].data_ptr() % 16 for launch in gpu.launches] == [0, 4]
    assert gpu.launches[0].files == gpu.launches[1].files


def test_cpu_tensors_are_refused_without_the_interpreter(monkeypatch):
    pytest.importorskip("triton")
    importlib.import_module("fastnt.kernels.triton_launch")  # Triton reads the variable here
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match="impl='triton' cannot run here: it is for CUDA and ROCm"):
        op.choose("triton", torch.zeros(1, 2, 3))


@pytest.fixture
def gpu_that_is_not_there(monkeypatch):
    """Tensors on it have no values; Triton takes it for an H100."""
    driver = pytest.importorskip("triton").runtime.driver
    from torch._subclasses.fake_tensor import FakeTensorMode
    from triton.backends.compiler import GPUTarget

    class Driver:
        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self):
            return 0

    monkeypatch.setattr(driver, "_active", Driver())
    torch._dynamo.reset()
    with FakeTensorMode():
        yield torch.device("cuda")


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.skipif(torch.cuda.is_available(), reason="test_noisy_l2_gpu.py runs what is compiled")
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("shape", "launches"), [((64, 1000), 2), ((64, 10), 1), ((16, 4096), 2)], ids=str
)
def test_torch_compile_sees_the_launches(gpu_that_is_not_there, shape, launches, dynamic):
    """In one graph with what is around them, and that a launch writes its outputs alone."""
    from torch._dynamo.backends.common import aot_autograd

    seen = []

    def compiler(graph, inputs):
        seen.extend(n for n in graph.graph.nodes if "triton_kernel_wrapper" in n.name)
        return graph.forward

    @torch.compile(fullgraph=True, dynamic=dynamic, backend=aot_autograd(fw_compiler=compiler))
    def value_and_grad(student, teacher, alpha, sigma, seed, step):
        given = {"alpha": alpha, "sigma": sigma, "seed": seed, "step": step}
        return fastnt.noisy_l2_value_and_grad(student, teacher, **given, impl="triton")

    device = gpu_that_is_not_there
    student, teacher = torch.empty(2, *shape, device=device).unbind()
    alpha, sigma = torch.empty(2, device=device).unbind()
    seed, step = torch.empty(2, dtype=torch.int64, device=device).unbind()
    loss, grad = value_and_grad(student, teacher, alpha, sigma, seed, step)
    assert loss.shape == ()
    assert grad.shape == shape
    written = [node.kwargs["tensors_to_clone"] for node in seen]
    assert written == [["grad", "sums"], ["loss"]][:launches]
