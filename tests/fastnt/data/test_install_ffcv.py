"""The installer of FFCV: what it says where it installs nothing, and its stand-in headers."""

import shutil
import subprocess
import sys

import pytest

from fastnt.data import install_ffcv

RESIZE = """
#include <opencv2/opencv.hpp>
#include <turbojpeg.h>
#include <cassert>
int main(int count, char **) {
    uint8_t source[4 * 6 * 3], target[2 * 2 * 3];
    for (int i = 0; i < 72; ++i) source[i] = static_cast<uint8_t>(i);
    cv::Mat from(4, 6, CV_8UC3, source), to(2, 2, CV_8UC3, target);
    // Rows 0..3 and columns 2..5 shrink to 2x2: means of four pixels each.
    cv::resize(from.colRange(2, 6).rowRange(0, 4), to, to.size(), 0, 0, cv::INTER_AREA);
    assert(target[0] == (6 + 9 + 24 + 27) / 4 + 1);  // 16.5 is rounded up
    assert(target[11] == (6 + 9 + 24 + 27 + 4 * (6 + 36 + 2)) / 4 + 1);
    if (count > 1) tjDecompress2(nullptr, nullptr, 0, nullptr, 0, 0, 0, 0, 0);
}
"""


def test_installed_ffcv_is_left_alone(monkeypatch, capsys):
    monkeypatch.setattr(install_ffcv.platform, "system", lambda: "Linux")
    monkeypatch.setattr(install_ffcv.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(install_ffcv, "import_error", lambda: "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it ran a program"))
    monkeypatch.setattr(sys, "argv", ["install_ffcv"])
    assert install_ffcv.main() == 0
    assert capsys.readouterr().out == "FFCV is installed\n"


def test_elsewhere_than_on_linux_the_resident_loader_serves(monkeypatch):
    monkeypatch.setattr(install_ffcv.platform, "system", lambda: "Darwin")
    assert "the resident loader serves" in install_ffcv.install()


def test_a_failure_is_one_sentence_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr(install_ffcv.platform, "system", lambda: "Linux")
    monkeypatch.setattr(install_ffcv, "NEEDS", {})
    monkeypatch.setattr(install_ffcv.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setattr(sys, "argv", ["install_ffcv"])
    assert install_ffcv.main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fastnt: error: FFCV could not be installed (ERROR: ")
    assert err.count("\n") == 1
    assert "`--loader resident` works without FFCV" in err


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_stand_in_headers_resize_and_refuse_jpeg(tmp_path):
    (tmp_path / "a.cpp").write_text(RESIZE)
    include = install_ffcv.STUB / "include"
    command = ["c++", "-Wall", "-Werror", "-I", include, tmp_path / "a.cpp", "-o", tmp_path / "a"]
    subprocess.run(command, check=True)
    assert subprocess.run([tmp_path / "a"], check=False).returncode == 0
    refused = subprocess.run([tmp_path / "a", "jpeg"], capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "built without JPEG" in refused.stderr
