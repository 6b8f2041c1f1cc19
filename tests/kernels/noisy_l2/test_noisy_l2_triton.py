"""The Triton kernel compiled ahead of time for GPUs that need not be here, and its code read."""

import itertools

import pytest
import torch

import fastnt
from fastnt.kernels.noisy_l2 import op
from fastnt.kernels.noisy_l2.launch import choose_launch, choose_sum
from fastnt.kernels.noisy_l2.signature import Options, Tensors

LARGE = (8192, 32768)
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
CASES = [
    *((target, LARGE, dtype) for target in TARGETS for dtype in ("fp32", "bf16")),
    *((target, (1024, 10), "fp32") for target in TARGETS),
    *(("sm_90", shape, "fp32") for shape in ((4096, 100), (256, 21841), (100_000, 10))),
    ("sm_90", (100_000, 10), "bf16"),
]


@pytest.fixture
def build(compile_for):
    """Compile the kernel as its launcher would for student logits (samples, classes)."""
    pytest.importorskip("triton")
    from fastnt.kernels.noisy_l2.triton import noisy_l2_kernel, sum_kernel, vector_options

    def build(target, samples, classes, dtype, **options):
        given = choose_launch(1, samples, classes)
        size = 4 if dtype == "fp32" else 2
        constants = {
            "students": 1,
            "student_stride_c": 1,
            "teacher_stride_c": 1,
            "NUMBERS": 0,
            "HAS_HIGH": 0,
            "HAS_INDEX": 1,
            "HAS_SCALE": 1,
            "WRITE_GRAD": 1,
            "SHARED": 0,
            "PERTURB_STUDENT": 0,
            "REDUCTION": 2,
            "TURNS": given.turns,
            "ROWS": given.rows,
            "BLOCK": given.block,
            "APPROX": int(target.startswith("sm_")),
            **vector_options([classes], True, given.block, size),
            **options,
        }
        arguments = {
            name: "i64" if "stride" in name else "i32"
            for name in noisy_l2_kernel.arg_names
            if name not in constants
        }
        logits = dict.fromkeys(("student", "teacher", "grad"), f"*{dtype}")
        longs = dict.fromkeys(("seed", "step", "index"), "*i64")
        floats = ("sums", "alpha", "sigma", "sigma_high", "grad_scale")
        arguments |= logits | longs | dict.fromkeys(floats, "*fp32")
        if constants["NUMBERS"]:
            arguments |= dict.fromkeys(("alpha", "sigma", "sigma_high"), "fp32")
            arguments |= {"seed": "i64", "step": "i32"}
        return compile_for(
            target,
            noisy_l2_kernel,
            arguments,
            constants,
            num_warps=given.threads // (64 if target.startswith("gfx") else 32),
            enable_fp_fusion=False,
        )

    build.sum_kernel = sum_kernel
    return build


@pytest.mark.parametrize(("target", "shape", "dtype"), CASES, ids=str)
def test_no_machine_spills(build, target, shape, dtype):
    code = build(target, *shape, dtype)
    assert code.local_bytes == 0
    assert code.count("LDL") + code.count("STL") + code.count("scratch_") == 0


@pytest.mark.parametrize(
    "options",
    [
        {"SHARED": 1, "PERTURB_STUDENT": 1, "HAS_HIGH": 1, "REDUCTION": 0},
        {"WRITE_GRAD": 0, "REDUCTION": 3},
        {"UNIT_STRIDE": 0, "ALIGNMENT": 1, "PARTS": 4, "CALLS": 1},
        {"NUMBERS": 31, "HAS_HIGH": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [LARGE, (1024, 10)], ids=str)
def test_no_option_spills(build, shape, options):
    code = build("sm_90", *shape, "fp16", **options)
    assert code.local_bytes == 0


@pytest.mark.parametrize(
    ("dtype", "most"), [("fp32", 28), ("bf16", 31)], ids=["float32", "bfloat16"]
)
def test_long_rows_on_sm_90(build, dtype, most):
    code = build("sm_90", *LARGE, dtype)
    assert code.registers <= 64
    loads = code.loop.count("LDG.E.128")
    assert loads == (4 if dtype == "fp32" else 2)  # 8 classes of each input
    assert sum(i.startswith("LDG") for i in code.loop) == loads
    assert sum(i.startswith("STG") for i in code.loop) == code.loop.count("STG.E.128")
    # The normals stay in the thread that draws them, and all 8 are drawn in this loop.
    assert not [i for i in code.loop if i.startswith(("SHFL", "STS", "LDS", "BAR"))]
    assert code.loop.count("MUFU.LG2") == 4
    assert len(code.loop) / 8 <= most


def test_the_second_stage_compiles(build, compile_for):
    arguments = {"sums": "*fp32", "loss": "*fp32", "count": "i32"}
    for target, parts in itertools.product(("sm_90", "gfx942"), (2, 100, 10_000)):
        block, threads = choose_sum(parts)
        warps = max(1, threads // (64 if target == "gfx942" else 32))
        code = compile_for(
            target,
            build.sum_kernel,
            arguments,
            {"BLOCK": block},
            num_warps=warps,
            enable_fp_fusion=False,
        )
        assert code.local_bytes == 0


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
    assert all(launch.num_warps * warp_size <= 1024 for launch in stand_in_gpu.launches)


def test_cpu_tensors_are_refused_without_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    pytest.importorskip("triton")
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
@pytest.mark.parametrize(("shape", "launches"), [((64, 1000), 2), ((64, 10), 1)], ids=str)
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
