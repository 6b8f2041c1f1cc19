"""Downloads against a server on this machine: mirrors in turn, checksums, whole files or none."""

import hashlib
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from fastnt.data import sources
from fastnt.data.prepare import prepare
from fastnt.errors import UserError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path.startswith("/short/"):  # promises more than it sends
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"a few bytes")
            return
        super().do_GET()


@pytest.fixture
def server(tmp_path):
    """The address of a server of the folder tmp_path/official."""
    (tmp_path / "official").mkdir(exist_ok=True)
    handler = partial(Quiet, directory=str(tmp_path / "official"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def publish(monkeypatch):
    """Make the files of a folder the official ones of a data set, at these mirrors."""

    def published(name, folder, *mirrors):
        files = {
            path.name: hashlib.md5(path.read_bytes()).hexdigest()
            for path in sorted(folder.iterdir())
        }
        source = replace(sources.SOURCES[name], mirrors=mirrors, files=files)
        monkeypatch.setitem(sources.SOURCES, name, source)

    return published


def downloaded(cache):
    return sorted(path.name for path in cache.rglob("downloads/*/*"))


def test_the_second_mirror_serves_when_the_first_has_nothing(server, publish, mnist_folder, cache):
    publish("mnist", mnist_folder, f"{server}/gone/", f"{server}/mnist/")
    made = prepare("mnist", progress=False)
    assert (made.official, made.train.count) == (True, 200)
    assert downloaded(cache) == sorted(path.name for path in mnist_folder.iterdir())


def test_wrong_contents_are_never_kept(server, publish, mnist_folder, cache):
    publish("mnist", mnist_folder, f"{server}/wrong/", f"{server}/mnist/")
    wrong = mnist_folder.parent / "wrong"
    wrong.mkdir()
    for path in mnist_folder.iterdir():
        (wrong / path.name).write_bytes(path.read_bytes() + b"!")
    assert prepare("mnist", progress=False).official
    for path in mnist_folder.iterdir():
        assert (cache / "downloads" / "mnist" / path.name).read_bytes() == path.read_bytes()


def test_when_all_mirrors_fail_each_reason_is_given(server, publish, mnist_folder, cache):
    mirrors = [f"{server}/gone/", f"{server}/wrong/", f"{server}/short/", "http://127.0.0.1:1/"]
    publish("mnist", mnist_folder, *mirrors)
    (mnist_folder.parent / "wrong").mkdir()
    for path in mnist_folder.iterdir():
        (mnist_folder.parent / "wrong" / path.name).write_bytes(b"!")
    with pytest.raises(UserError) as caught:
        prepare("mnist", progress=False)
    said = str(caught.value)
    reasons = [
        "HTTP 404 File not found",
        "the checksum is wrong",
        "the connection broke",
        "no connection",
    ]
    for mirror, reason in zip(mirrors, reasons, strict=True):
        assert f"{mirror}: {reason}" in said
    assert said.startswith("cannot download t10k-images-idx3-ubyte.gz (")
    assert "name their folder with --data-dir" in said
    assert "\n" not in said
    assert downloaded(cache) == []


def test_extra_images_are_fetched_unless_left_out(server, publish, svhn_folder, cache):
    publish("svhn", svhn_folder, f"{server}/svhn/")
    assert prepare("svhn", extra=False, progress=False).train.parts == {"train": 120}
    assert downloaded(cache) == ["test_32x32.mat", "train_32x32.mat"]
    # What is prepared serves whoever does not ask for more, and the rest is fetched for who does.
    assert prepare("svhn", progress=False).train.parts == {"train": 120}
    assert prepare("svhn", extra=True, progress=False).train.parts == {"train": 120, "extra": 80}
    assert "extra_32x32.mat" in downloaded(cache)


def test_progress_is_shown_on_stderr(server, publish, mnist_folder, capfd):
    publish("mnist", mnist_folder, f"{server}/mnist/")
    prepare("mnist")
    out, err = capfd.readouterr()
    assert out == ""
    assert "train-images-idx3-ubyte.gz" in err


def test_the_published_addresses_and_checksums():
    """The real list is complete: every file has a mirror over it and a 128-bit checksum."""
    for name in ("mnist", "svhn", "cifar10"):
        source = sources.SOURCES[name]
        assert all(mirror.startswith("http") and mirror.endswith("/") for mirror in source.mirrors)
        assert all(len(bytes.fromhex(md5)) == 16 for md5 in source.files.values())
    assert [len(sources.SOURCES[name].files) for name in ("mnist", "svhn", "cifar10")] == [4, 3, 1]
