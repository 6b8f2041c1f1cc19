"""An independent implementation of the noise stream and the loss in NumPy float64."""

import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest


class Reference:
    """Everything as the definitions say it, with no thought of speed."""

    NOISE, MASK, SHARED, AUGMENT, SIGMA = range(5)

    @staticmethod
    def philox(counter, seed):
        low, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
        c = [np.asarray(x, dtype=np.uint64) for x in counter]
        k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
        for _ in range(10):
            p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
            c = [
                (p1 >> low) ^ c[1] ^ np.uint64(k0),
                p1 & mask,
                (p0 >> low) ^ c[3] ^ np.uint64(k1),
                p0 & mask,
            ]
            k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
        return np.broadcast_arrays(*c)

    @staticmethod
    def box_muller(words):
        u = [((w >> np.uint64(9)).astype(np.float64) + 0.5) / 2**23 for w in words]
        normals = []
        for radius, angle in ((u[0], u[1]), (u[2], u[3])):
            length = np.sqrt(-2 * np.log(radius))
            normals += [length * np.cos(2 * np.pi * angle), length * np.sin(2 * np.pi * angle)]
        return np.stack(normals, axis=-1)

    def select(self, alpha, seed, step, rows, teacher=0):
        word = self.philox((0, rows, step, self.MASK + 256 * teacher), seed)[0]
        return (word >> np.uint64(8)).astype(np.float64) / 2**24 < np.float64(np.float32(alpha))

    def normals(self, seed, step, rows, classes, shared=False, teacher=0):
        rows = np.asarray(rows)[:, None] * (0 if shared else 1)
        groups = np.arange(-(-classes // 4))
        stream = (self.SHARED if shared else self.NOISE) + 256 * teacher
        blocks = self.box_muller(self.philox((groups, rows, step, stream), seed))
        return blocks.reshape(len(rows), -1)[:, :classes]

    def sigma(self, low, high, seed, step, teacher=0):
        word = int(self.philox((0, 0, step, self.SIGMA + 256 * teacher), seed)[0])
        low, high = np.float64(np.float32(low)), np.float64(np.float32(high))
        return low + (high - low) * ((word >> 9) + 0.5) / 2**23

    def loss_and_grad(
        self, g, z, alpha, sigma, seed, step, rows, *, shared=False, student=False, teacher=0
    ):
        """Return one loss a sample and its gradient, for one student (N, C)."""
        xi = np.float64(np.float32(sigma)) * self.normals(
            seed, step, rows, g.shape[1], shared, teacher
        )
        f = 1 + self.select(alpha, seed, step, rows, teacher)[:, None] * xi
        r = f * g - z if student else g - f * z
        return (r**2).sum(1) / 2, r * f if student else r


@pytest.fixture(scope="session")
def reference() -> Reference:
    return Reference()


@pytest.fixture(scope="session")
def rms():
    """The root mean square of a tensor's values, as a function; 0 where there are none."""
    return lambda values: values.double().square().mean().sqrt().item() if values.numel() else 0.0


@pytest.fixture(scope="session")
def known_answers() -> dict[str, Any]:
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("FASTNT_SHARED", root.parent / "shared"))
    file = folder / "vectors" / "noise_stream.json"
    if not file.is_file():
        pytest.skip("the known answers are not at hand")
    answers: dict[str, Any] = json.loads(file.read_text())
    return answers


@pytest.fixture
def machine_code(monkeypatch):
    """benchmarks/machine_code.py: GPUs that are not here, and the code that Triton makes for them."""
    pytest.importorskip("triton")
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    return importlib.import_module("machine_code")


@pytest.fixture(params=["sm_90", "gfx942"])
def stand_in_gpu(request, machine_code):
    """Triton and torch believe in a GPU that is not there, one of NVIDIA's and one of AMD's."""
    with machine_code.stand_in(request.param) as gpu:
        yield gpu


@pytest.fixture
def compile_for(machine_code):
    """Compile a Triton kernel for a machine that is not here, and take its code apart.

    ``arguments`` are its integers ("i32") and pointers ("*fp32", aligned to 16 bytes).
    """
    import triton
    from triton.compiler import ASTSource

    def compile_for(target, kernel, arguments, constants, **options):
        names = kernel.arg_names
        signature = {name: arguments.get(name, "constexpr") for name in names}
        pointers = [i for i, name in enumerate(names) if signature[name].startswith("*")]
        aligned = {(i,): [["tt.divisibility", 16]] for i in pointers}
        source = ASTSource(kernel, signature, constants, aligned)
        compiled = triton.compile(source, target=machine_code.gpu(target), options=options)
        return machine_code.read_code(compiled.metadata_group)

    return compile_for
