"""Downloads against a server on this machine: mirrors in turn, checksums, whole files or none."""

import hashlib
import re
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fastnt.data import download, sources
from fastnt.data.prepare import prepare
from fastnt.errors import UserError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        kind, _, rest = self.path[1:].partition("/")
        if (act := getattr(self, f"send_{kind}", None)) is not None:
            with suppress(ConnectionError):  # the client has given up
                act(f"/{rest}")
            return
        super().do_GET()

    def begin(self, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send_short(self, rest):
        """Promise more than is sent."""
        self.begin(Content_Length="1000")
        self.wfile.write(b"a few bytes")

    def send_slow(self, rest):
        """Send a byte now and then."""
        self.begin(Content_Length="1000000")
        for _ in range(1000):
            self.wfile.write(b"a")
            time.sleep(0.05)

    def send_endless(self, rest):
        self.begin()
        for _ in range(10_000):
            self.wfile.write(bytes(1 << 16))

    def send_circle(self, rest):
        self.begin(302, Location=self.path)

    def send_ill(self, rest):
        self.begin(500)

    def send_tired(self, rest):
        """Fail once for each file, then serve it."""
        if rest not in FAILED:
            FAILED.add(rest)
            self.begin(503)
            return
        self.path = rest
        super().do_GET()

    def send_zipped(self, rest):
        """Serve a .gz file as what a client is to unzip."""
        data = Path(self.translate_path(rest)).read_bytes()
        self.begin(Content_Length=str(len(data)), Content_Encoding="gzip")
        self.wfile.write(data)


FAILED = set()


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
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        source = replace(sources.SOURCES[name], mirrors=mirrors, files=files, sizes=sizes)
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
        (wrong / path.name).write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
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
        "the connection broke after 1 of",
        "the connection broke",
        "no connection",
    ]
    for mirror, reason in zip(mirrors, reasons, strict=True):
        assert f"{mirror}: {reason}" in said
    assert said.startswith("cannot download t10k-images-idx3-ubyte.gz (")
    assert "name their folder with --data-dir" in said
    assert "\n" not in said
    assert downloaded(cache) == []


@pytest.mark.parametrize(
    ("mirror", "reason"),
    [
        ("slow", "it sends less than 10 kB a second"),
        ("endless", "it sends more than the file's "),
        ("circle", "it leads from one address to another without end"),
        ("ill", "HTTP 500 Internal Server Error"),
    ],
)
def test_the_second_mirror_serves_when_the_first_is_no_use(
    server, publish, mnist_folder, cache, monkeypatch, mirror, reason
):
    monkeypatch.setattr(download, "GRACE", 0.3)
    monkeypatch.setattr(download, "RETRY_AFTER", 0.01)
    publish("mnist", mnist_folder, f"{server}/{mirror}/", f"{server}/mnist/")
    assert prepare("mnist", progress=False).official
    shutil.rmtree(cache)
    publish("mnist", mnist_folder, f"{server}/{mirror}/")
    with pytest.raises(UserError, match=re.escape(f"/{mirror}/: {reason}")):
        prepare("mnist", progress=False)
    assert downloaded(cache) == []


@pytest.mark.parametrize("mirror", ["tired", "zipped"])
def test_a_server_that_fails_once_and_one_that_would_have_files_unzipped(
    server, publish, mnist_folder, cache, monkeypatch, mirror
):
    monkeypatch.setattr(download, "RETRY_AFTER", 0.01)
    publish("mnist", mnist_folder, f"{server}/{mirror}/mnist/")
    assert prepare("mnist", progress=False).official
    FAILED.clear()


def test_what_a_killed_download_left_is_swept_and_a_damaged_file_is_fetched_again(
    server, publish, mnist_folder, cache
):
    publish("mnist", mnist_folder, f"{server}/mnist/")
    folder = cache / "downloads" / "mnist"
    folder.mkdir(parents=True)
    (folder / ".t10k-labels-idx1-ubyte.gz.00000000-1.x.part").write_bytes(b"half")
    path = mnist_folder / "t10k-labels-idx1-ubyte.gz"
    (folder / path.name).write_bytes(bytes(path.stat().st_size))
    assert prepare("mnist", progress=False).official
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        p.name for p in mnist_folder.iterdir()
    )


@pytest.mark.parametrize("value", ["http://me:secret@127.0.0.1:1", "http://me:secret@[", "?://x"])
def test_a_proxy_that_is_dead_or_garbled_is_named_without_its_password(
    server, publish, mnist_folder, monkeypatch, value
):
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", value)
    publish("mnist", mnist_folder, "http://example.invalid/")
    with pytest.raises(UserError, match="no connection through the proxy of http_proxy=") as error:
        prepare("mnist", progress=False)
    assert "secret" not in str(error.value)


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
        assert source.sizes.keys() == source.files.keys()
    assert [len(sources.SOURCES[name].files) for name in ("mnist", "svhn", "cifar10")] == [4, 3, 1]
