"""Both loaders give the rows of the training list, bit for bit, in the order of the epoch."""

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from fastnt.data import beton, loaders, split
from fastnt.data.loaders import make_loader
from fastnt.data.order import epoch_order
from fastnt.errors import UserError

CPU = torch.device("cpu")
COUNT = 1500  # three pages of 682 images


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(9)
    return rng.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, COUNT)


@pytest.fixture(scope="module")
def data(arrays, tmp_path_factory):
    """One split for the module: FFCV compiles for a second for each file."""
    path = tmp_path_factory.mktemp("split") / "train.beton"
    facts = {"dataset": "x", "official": False, "classes": "abcdefghij", "source_sha256": ""}
    return split.write_split(path, parts={"train": arrays}, **facts)


@pytest.fixture(params=["resident", "ffcv"])
def make(request, data):
    """A function that makes a loader of one kind for the module's split."""
    if request.param == "ffcv":
        pytest.importorskip("ffcv")

    def made(**changes):
        asked = {"positions": np.arange(COUNT), "batch_size": 64, "order_seed": 3, "device": CPU}
        return make_loader(request.param, data, **(asked | changes))

    return made


def epoch_of(loader, epoch):
    """All batches of an epoch; looked at only afterwards, as batches are the caller's to keep."""
    batches = list(loader.epoch(epoch))
    assert len(batches) == -(-loader.count // loader.batch_size)
    return batches


def test_list_order_without_a_seed(make, arrays):
    batches = epoch_of(make(order_seed=None, batch_size=512), 5)
    assert [len(batch.labels) for batch in batches] == [512, 512, 476]
    images, labels, index = (torch.cat(column) for column in zip(*batches, strict=True))
    assert (images.dtype, labels.dtype, index.dtype) == (torch.uint8, torch.int64, torch.int64)
    assert index.tolist() == list(range(COUNT))
    assert np.array_equal(images.numpy(), arrays[0])
    assert np.array_equal(labels.numpy(), arrays[1])


@pytest.mark.parametrize("repeats", [1, 2])
def test_each_row_comes_once_an_epoch_in_the_order_of_the_seed(make, arrays, repeats):
    positions = np.random.default_rng(1).permutation(COUNT)[:1001]
    loader = make(positions=positions, repeats=repeats, order_seed=2**40 + 7)
    assert loader.count == repeats * 1001
    for epoch in (0, 3):
        batches = epoch_of(loader, epoch)
        images, labels, index = (torch.cat(column).numpy() for column in zip(*batches, strict=True))
        assert np.array_equal(index, epoch_order(2**40 + 7, epoch, repeats * 1001))
        assert np.array_equal(images, arrays[0][positions[index % 1001]])
        assert np.array_equal(labels, arrays[1][positions[index % 1001]])


@pytest.mark.parametrize("world", [2, 3, 70])
def test_the_parts_of_all_ranks_are_the_batches(make, world):
    positions = np.arange(64 * 3 + 2)  # a last batch of two rows
    whole = epoch_of(make(positions=positions), 1)
    parts = [
        epoch_of(make(positions=positions, rank=rank, world=world), 1) for rank in range(world)
    ]
    for number, batch in enumerate(whole):
        for rank, part in enumerate(parts):
            for expected, given in zip(batch, part[number], strict=True):
                assert given.dtype == expected.dtype
                assert torch.equal(given, expected[rank::world])
    later = list(make(positions=positions, rank=1, world=world).epoch(1, start=2))
    assert [batch.index.tolist() for batch in later] == [p.index.tolist() for p in parts[1][2:]]


def test_an_empty_list_has_no_batches(make):
    assert epoch_of(make(positions=np.arange(0)), 0) == []


def test_a_last_batch_of_one_keeps_its_dimensions(make):
    *_, last = make(positions=np.arange(65)).epoch(0)
    assert [tensor.shape for tensor in last] == [(1, 32, 32, 3), (1,), (1,)]


def test_an_epoch_can_be_repeated_and_interleaved_with_another(make):
    loader, other = make(), make(batch_size=100, order_seed=4)
    alone = epoch_of(loader, 2)
    together = [batch for batch, _ in zip(loader.epoch(2), other.epoch(2), strict=False)]
    assert len(together) == 15
    for one, two in zip(alone, together, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_leaving_epochs_early_leaves_no_thread(make):
    loader = make(batch_size=16)
    epoch_of(loader, 0)
    before = set(threading.enumerate())
    for epoch in range(20):
        for number, _ in enumerate(loader.epoch(epoch)):
            if number == epoch % 5:
                break
    assert set(threading.enumerate()) == before


def test_torch_keeps_its_number_of_threads(make):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        epoch_of(make(), 0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_bad_arguments_are_named(make):
    with pytest.raises(UserError, match="the batch size is 0; give at least 1"):
        make(batch_size=0)
    for positions in ([-1], [COUNT], [[0]]):
        with pytest.raises(ValueError, match=r"positions must lie in \[0, 1500\)"):
            make(positions=np.array(positions))


def test_an_unknown_kind_is_named(data):
    with pytest.raises(UserError, match="unknown loader 'dali'; choose auto, ffcv or resident"):
        make_loader("dali", data, positions=np.arange(9), batch_size=1, order_seed=0, device=CPU)


def test_auto_streams_what_fills_a_tenth_of_the_memory(data, monkeypatch):
    pytest.importorskip("ffcv")

    def kind(free):
        monkeypatch.setattr(loaders, "free_memory", lambda device: free)
        asked = {"positions": np.arange(COUNT), "batch_size": 9, "order_seed": 0, "device": CPU}
        return type(make_loader("auto", data, **asked)).__name__

    size = COUNT * 32 * 32 * 3
    assert (kind(10 * size), kind(10 * size - 1)) == ("ResidentLoader", "FfcvLoader")
    monkeypatch.setattr(loaders.importlib.util, "find_spec", lambda name: None)
    assert kind(0) == "ResidentLoader"


def test_free_memory_of_the_cpu_is_plausible():
    assert 1 << 20 < loaders.free_memory(CPU) < 1 << 50


def test_the_limit_of_a_container_is_a_limit(tmp_path):
    assert loaders._free_in_group(tmp_path) > 1 << 60
    files = {"max": "4096\n", "current": "3000\n", "stat": "anon 7\ninactive_file 500\n"}
    for name, text in files.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert loaders._free_in_group(tmp_path) == 4096 - 3000 + 500
    (tmp_path / "memory.max").write_text("max\n")
    assert loaders._free_in_group(tmp_path) > 1 << 60


def test_without_ffcv_its_loader_is_an_error_with_the_remedy(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastnt.data.ffcv_stream", None)
    with pytest.raises(
        UserError, match=r"run `python -m fastnt.data.install_ffcv`, or use --loader"
    ):
        make_loader("ffcv", data, positions=np.arange(9), batch_size=1, order_seed=0, device=CPU)


def test_importing_the_loaders_does_not_import_ffcv():
    code = "import sys, fastnt.data.loaders, fastnt.data.prepare; print('ffcv' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


class TestFfcv:
    """What only the streaming loader has."""

    @pytest.fixture
    def loader(self, data):
        pytest.importorskip("ffcv")
        asked = {"positions": np.arange(COUNT), "batch_size": 64, "order_seed": 3, "device": CPU}
        return make_loader("ffcv", data, **asked)

    def test_an_error_in_its_thread_is_raised_with_its_cause(self, loader, monkeypatch):
        from ffcv.loader.epoch_iterator import EpochIterator

        real = EpochIterator.run_pipeline

        def fails(self, number, *rest):
            if number == 3:
                raise MemoryError("out of pages")
            return real(self, number, *rest)

        monkeypatch.setattr(EpochIterator, "run_pipeline", fails)
        before = set(threading.enumerate())
        came = []
        with pytest.raises(RuntimeError, match=r"failed while reading .*train\.beton") as caught:
            came.extend(loader.epoch(0))
        assert len(came) == 3
        assert isinstance(caught.value.__cause__, MemoryError)
        assert set(threading.enumerate()) == before

    def test_one_compiled_loader_serves_a_file(self, loader, data, monkeypatch):
        from ffcv.loader import Loader

        epoch_of(loader, 0)
        monkeypatch.setattr(Loader, "__init__", lambda *_, **__: pytest.fail("made another"))
        asked = {"positions": np.arange(9), "batch_size": 3, "order_seed": None, "device": CPU}
        assert len(epoch_of(make_loader("ffcv", data, **asked), 0)) == 3

    def test_numbas_own_types_stay_as_they_are(self, loader, capfd):
        import numba

        epoch_of(loader, 0)
        assert numba.types.uint8[::1].mutable
        gc.collect()
        assert "Exception ignored" not in capfd.readouterr().err

    @pytest.mark.parametrize("count", [1, 682, COUNT])
    def test_files_are_those_that_ffcvs_own_writer_makes(self, arrays, tmp_path, count):
        pytest.importorskip("ffcv")
        from ffcv.fields import IntField, NDArrayField
        from ffcv.writer import DatasetWriter

        images, labels = (column[:count] for column in arrays)
        fields = {
            "image": NDArrayField(np.dtype("u1"), (32, 32, 3)),
            "label": IntField(),
            "index": IntField(),
        }
        samples = [(images[i], int(labels[i]), i) for i in range(count)]
        writer = DatasetWriter(str(tmp_path / "ffcv"), fields, page_size=beton.PAGE, num_workers=1)
        writer.from_indexed_dataset(samples)
        beton.write(tmp_path / "ours", [(images, labels)])
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "ffcv").read_bytes()

    def test_files_with_jpeg_are_refused(self, arrays, tmp_path):
        pytest.importorskip("ffcv")
        from ffcv.fields import IntField, RGBImageField
        from ffcv.writer import DatasetWriter

        fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
        writer = DatasetWriter(
            str(tmp_path / "a.beton"), fields, page_size=beton.PAGE, num_workers=1
        )
        writer.from_indexed_dataset([(arrays[0][0], 1)])
        with pytest.raises(
            UserError, match="its images are JPEG-coded, and fastnt reads raw images"
        ):
            split.open_split(tmp_path / "a.beton")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["resident", "ffcv"])
def test_batches_on_the_gpu_are_those_on_the_cpu(data, kind):
    """Kept batches stay right although the host runs far ahead of the device."""
    if kind == "ffcv":
        pytest.importorskip("ffcv")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    asked = {"positions": np.arange(COUNT), "repeats": 4, "batch_size": 8, "order_seed": 3}
    device = torch.device("cuda")
    loader = make_loader(kind, data, device=device, **asked)
    heavy = torch.randn(2048, 2048, device=device)
    batches = []
    for batch in loader.epoch(1):
        heavy = torch.nn.functional.normalize(heavy @ heavy)
        batches.append(batch)
    expected = make_loader("resident", data, device=CPU, **asked).epoch(1)
    for ours, theirs in zip(batches, expected, strict=True):
        assert ours.images.device.type == "cuda"
        assert all(torch.equal(a.cpu(), b) for a, b in zip(ours, theirs, strict=True))


def test_real_mnist_streams_as_it_lies(shared):
    """The real files, where they are at hand: official by their contents, and bit-equal."""
    import gzip

    from fastnt.data.prepare import prepare

    folder = shared / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip("no MNIST in the shared folder")
    made = prepare("mnist", folder, progress=False)
    assert (made.official, made.train.count, made.test.count) == (True, 60_000, 10_000)
    kind = "ffcv" if loaders.importlib.util.find_spec("ffcv") else "resident"
    for chosen, name in ((made.train, "train"), (made.test, "t10k")):
        asked = {"positions": np.arange(chosen.count), "order_seed": None, "device": CPU}
        batches = list(make_loader(kind, chosen, batch_size=5000, **asked).epoch(0))
        pixels = gzip.decompress((folder / f"{name}-images-idx3-ubyte.gz").read_bytes())[16:]
        digits = gzip.decompress((folder / f"{name}-labels-idx1-ubyte.gz").read_bytes())[8:]
        assert torch.cat([batch.images for batch in batches]).numpy().tobytes() == pixels
        assert (
            torch.cat([batch.labels for batch in batches]).to(torch.uint8).numpy().tobytes()
            == digits
        )
