"""The Triton kernel compiled ahead of time for GPUs that need not be here, and its code read."""

import importlib

import pytest
import torch

from fastnt.kernels.augment import augment

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
EVERYTHING = {"CROP": 1, "MIRROR": 1, "HAS_INDEX": 1, "HAS_FLIPPED": 1, "MEAN": 2, "STD": 2}


@pytest.fixture
def build(compile_for):
    """Compile the kernel as its launcher would for contiguous images (count, H, W, C)."""
    pytest.importorskip("triton")
    from fastnt.kernels.augment.triton import augment_kernel, launch_options

    def build(target, shape, dtype, **options):
        _count, height, width, channels = shape
        launch = launch_options(*shape)
        warps = launch.pop("num_warps")
        sizes = {"HEIGHT": height, "WIDTH": width, "CHANNELS": channels, "images_stride_c": 1}
        constants = sizes | EVERYTHING | launch | options
        arguments = {name: "i32" for name in augment_kernel.arg_names if name not in constants}
        arguments |= {"images": "*u8", "out": f"*{dtype}", "flipped": "*i1"}
        arguments |= dict.fromkeys(("index", "seed", "epoch"), "*i64")
        arguments |= dict.fromkeys(("mean", "std"), "*fp32")
        return compile_for(
            target, augment_kernel, arguments, constants, num_warps=warps, enable_fp_fusion=False
        )

    return build


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("shape", "dtype"), [((512, 32, 32, 3), "bf16"), ((512, 224, 224, 3), "fp32")], ids=str
)
def test_no_machine_spills(build, target, shape, dtype):
    code = build(target, shape, dtype)
    assert code.local_bytes == 0
    assert code.count("LDL") + code.count("STL") + code.count("scratch_") == 0


@pytest.mark.parametrize("shape", [(512, 28, 28, 1), (512, 5, 7, 3)], ids=str)
def test_no_option_spills(build, shape):
    plain = dict.fromkeys(EVERYTHING, 0)
    for options in ({}, plain, plain | {"CROP": 1, "MEAN": 1, "STD": 1}):
        assert build("sm_90", shape, "fp16", **options).local_bytes == 0


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_stores_are_16_bytes_wide_on_sm_90(build, dtype):
    code = build("sm_90", (512, 32, 32, 3), dtype)
    assert code.count("STG") == code.count("STG.E.128") == (2 if dtype == "fp32" else 1)
    assert code.registers <= 64
    # The pixels stay in the thread that loads them.
    assert code.count("STS") + code.count("LDS") + code.count("SHFL") == 0


def test_cpu_tensors_are_refused_without_the_interpreter(monkeypatch):
    pytest.importorskip("triton")
    importlib.import_module("fastnt.kernels.triton_launch")  # Triton reads the variable here
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match="impl='triton' cannot run here: it is for CUDA and ROCm"):
        augment(torch.zeros(1, 2, 2, 3, dtype=torch.uint8), impl="triton")


def test_a_pad_of_1_is_a_constant_to_torch_compile(build):
    assert build("sm_90", (512, 32, 32, 3), "fp32", pad=1).local_bytes == 0
