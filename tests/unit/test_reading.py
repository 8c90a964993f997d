"""The one door to files: what is opened, what is refused at once, and what the refusal says."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import threading
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import unidiff as ud
from unidiff import pretrained, reading, search_paths
from unidiff.codec.folder import codec_folder
from unidiff.data import image, mnist
from unidiff.data.folder import ImageFolder
from unidiff.data.image import decode
from unidiff.data.user_image import read_image
from unidiff.errors import DataError, RecipeError, RunError
from unidiff.files import digest
from unidiff.reading import Unreadable, map_array, open_regular, read_bytes, read_json, read_saved, read_tensors
from unidiff.recipe import yaml_tree
from unidiff.recipe.shipped import read_source
from unidiff.recipe.yaml_tree import read_yaml
from unidiff.run.directory import RunDirectory


@pytest.fixture
def odd(tmp_path):
    """Paths that are no regular files, by kind."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    listening = socket.socket(socket.AF_UNIX)
    here = os.open(tmp_path, os.O_RDONLY)
    listening.bind(f"/proc/self/fd/{here}/socket")  # a path of any length would not fit an address
    yield {
        "a pipe": tmp_path / "pipe",
        "a socket": tmp_path / "socket",
        "a device": "/dev/zero",
        "a directory": tmp_path,
        "Too many levels": tmp_path / "circle",
        "too long": tmp_path / ("x" * 300),
        "no such file": tmp_path / "nothing",
        "null": tmp_path / "a\0b",
    }
    listening.close()
    os.close(here)


def test_tensors_are_read_for_a_cpu_with_a_number(tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")  # as accelerate numbers the CPUs of several processes
    torch.save({"x": torch.ones(2)}, tmp_path / "x.pt")
    for read, name in ((read_tensors, "x.safetensors"), (read_saved, "x.pt")):
        assert torch.equal(read(tmp_path / name, torch.device("cpu", 0))["x"], torch.ones(2))


def test_only_regular_files_are_opened(odd):
    readers = [open_regular, read_bytes, read_json, read_tensors, read_saved, digest]
    for problem, path in odd.items():
        for read in readers:
            with pytest.raises(Unreadable, match=problem) as caught:
                read(path)
            assert caught.value.missing == (problem == "no such file")
        with pytest.raises(DataError, match=problem):
            decode(path, 8, 3)
        with pytest.raises(DataError, match=problem):
            map_array(path, "path")


def test_a_name_of_any_bytes(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff\xfe\x1b[2J")
    path.write_bytes(b"{}")
    assert read_json(path) == {}


def test_a_file_has_a_limit(tmp_path):
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 43)  # on the disk it takes nothing
    for read in (read_bytes, read_json, read_tensors, read_saved, digest, read_source):
        with pytest.raises((Unreadable, RecipeError), match="8,796,093,022,208 bytes, more than"):
            read(sparse)
    with pytest.raises(Unreadable, match="more than 10 bytes"):
        read_bytes("/proc/self/status", 10)  # files of /proc have no size


@pytest.mark.parametrize(("text", "problem"), [
    ("[" * 100_000, "nested too deeply"), ('{"a": ' + "[" * 60 + "]" * 60 + "}", "nested too deeply"),
    ("null", "expected a mapping"), ("{", "not readable JSON"), ('{"a": "\xff"}', "not readable JSON"),
])  # fmt: skip
def test_json_has_a_form(tmp_path, text, problem):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(Unreadable, match=problem):
        read_json(path)
    with pytest.raises(RunError, match=problem):
        pretrained.read_json(path)


def test_a_saved_state_is_not_compressed_and_runs_nothing(tmp_path):
    path, packed = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    assert read_saved(path)["a"].shape == (1000,)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(Unreadable, match="compressed"):
        read_saved(packed)
    torch.save({"a": os.system}, path)
    with pytest.raises(Unreadable, match="damaged"):
        read_saved(path)


# --- recipes and paths


def test_a_recipe_through_a_pipe(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_PATIENCE", 0.01)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(RecipeError, match="nothing comes through this pipe"):
        read_source(pipe)

    def through(content: bytes):
        out, into = os.pipe()
        os.write(into, content)
        os.close(into)
        try:
            return read_source(f"/dev/fd/{out}")
        finally:
            os.close(out)

    assert through(b"seed: 0")[1] == "seed: 0"
    monkeypatch.setattr("unidiff.recipe.shipped._LIMIT", 10)
    with pytest.raises(RecipeError, match="more than 10 bytes"):
        through(b"seed: 00000")
    with pytest.raises(RecipeError, match="a device"):
        read_source("/dev/zero")


@pytest.mark.parametrize(("text", "problem"), [
    ("a: [" + "1," * 100 + "]", "more than 100 keys and values"), ("a: " + "x" * 100_001, "100,000 characters"),
    ("\n" * 20_002, "20,000 lines"), ('a: "\\U00110000"', "out of range"), ('"\\uD800": 1', "half a character"),
    ("%YAML 1." + "9" * 5000, "out of range"), ("[" * 60 + "]" * 60, "nested too deeply"),
])  # fmt: skip
def test_a_recipe_has_a_form(text, problem, monkeypatch):
    monkeypatch.setattr(yaml_tree, "_MAX_ITEMS", 100)
    with pytest.raises(RecipeError, match=problem):
        read_yaml(text, "recipe")


def test_variables_and_homes_in_paths(tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "$HERE").mkdir()
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.delenv("NOWHERE", raising=False)
    for path in ("$HERE/pictures", "${HERE}/pictures"):
        assert search_paths.find(path, "root") == tmp_path / "pictures"
    monkeypatch.chdir(tmp_path)
    assert search_paths.find("$HERE", "root").name == "$HERE"  # it exists as it is written
    for path, problem in {
        "$NOWHERE/a": "variable NOWHERE, which is not set",
        "~nobody-of-this-name/a": "there is no user of this name",
        "x" * 300: "too long",
        "": "must be a path, got ''",
        "a\0": "no name has the character",
    }.items():
        with pytest.raises(DataError, match=problem):
            search_paths.find(path, "root")
        with pytest.raises(DataError, match=problem):
            ImageFolder(path).open()
    with pytest.raises(DataError, match="variable NOWHERE"):
        ud.load("$NOWHERE/run")


# --- images and arrays


def test_images_are_of_named_formats_and_limited_sizes(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(DataError, match="no format that is read"):  # and Ghostscript is not asked
        decode(path, 8, 3)
    Image.new("1", (16, 16)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (8000).to_bytes(4, "big") * 2  # width and height
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"8000 x 8000 pixels, which its .* bytes cannot hold"):
        decode(path, 8, 3)
    monkeypatch.setattr(image, "PIXEL_LIMIT", 1000)
    Image.new("1", (32, 32)).save(path)
    with pytest.raises(DataError, match="32 x 32 pixels, and at most 1,000"):
        decode(path, 8, 3)


def test_an_array_has_the_size_that_it_declares(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((1, 8, 8), np.float32))
    path.write_bytes(path.read_bytes().replace(b"(1, 8, 8)", b"(1, 8,9**9)"[:9]))
    with pytest.raises(DataError, match="cannot be read"):
        read_image(path, (1, 8, 8))
    np.save(path, np.zeros((2, 8, 8), np.float32))
    with pytest.raises(DataError, match=r"must have shape \(1, 8, 8\)"):
        read_image(path, (1, 8, 8))
    np.save(path, np.array([{}], object))
    with pytest.raises(DataError, match="cannot be read"):
        read_image(path, (1, 8, 8))


# --- run directories


def test_damaged_lines_of_metrics_are_left_out_and_said(tmp_path):
    line = b'{"step": 1, "loss": 0.5, "seconds": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(line + b"x\n\xff\n[]\n" + b"[" * 100_000 + b"\n" + line + b'{"step"')
    with pytest.warns(UserWarning, match="4 damaged lines of 6 are left out"):
        assert [entry["step"] for entry in RunDirectory(tmp_path).read_metrics()] == [1, 1]


@pytest.mark.parametrize("number", ["9" * 400, "1e308", "-1e308", "NaN", "1e999"])
def test_metrics_that_cannot_be_drawn_are_damaged(tmp_path, number):
    lines = [f'{{"step": 1, "loss": {loss}, "seconds": {seconds}}}\n' for loss, seconds in ((number, 1), (1, number))]
    step = f'{{"step": {2**63}, "loss": 1, "seconds": 1}}\n'
    (tmp_path / "metrics.jsonl").write_text("".join([*lines, step]))
    with pytest.warns(UserWarning, match="3 damaged lines of 3"):
        assert RunDirectory(tmp_path).read_metrics() == []


def test_metrics_have_a_limit(tmp_path):
    with (tmp_path / "metrics.jsonl").open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(RunError, match="Remove it"):
        RunDirectory(tmp_path).read_metrics()


def test_kept_files_are_inside_the_run_directory(tmp_path):
    outside, run = tmp_path / "outside", tmp_path / "run"
    run.mkdir()
    outside.write_bytes(b"")
    files = RunDirectory(run)
    for name in ("../outside", str(outside), "a\0b", "\ud800"):
        files.update_manifest(kept={name: digest(outside)})
        with pytest.raises(RunError, match="outside its directory"):
            files.check_kept()


def test_a_damaged_file_of_tensors_is_named(tmp_path):
    path = tmp_path / "process.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    damaged = pytest.raises(RunError, match=r"process.safetensors: the file is damaged .*restore the file")
    with damaged, RunDirectory(tmp_path).measured():
        pass


# --- downloads


def test_a_download_ends_at_the_size_of_the_right_file(tmp_path):
    class Endless(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):  # of the other end, which has had enough
                while True:
                    self.wfile.write(bytes(1 << 16))

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.handle_request, daemon=True).start()
    with pytest.raises(OSError, match="more comes than the right file has"):
        mnist._download(f"http://127.0.0.1:{server.server_port}/a", tmp_path / "a", 100_000)
    server.server_close()
    assert (tmp_path / "a").stat().st_size <= 100_000


def test_a_name_on_the_hub(monkeypatch, tmp_path):
    class Api:
        def model_info(self, name: str, **options: object) -> object:
            file = type("File", (), {"rfilename": "config.json", "size": 10**12})
            return type("Info", (), {"siblings": [file]})

    monkeypatch.setenv("UNIDIFF_OFFLINE", "1")
    for name in ("../x", "a/b/c", "a", "https://x/y", "a/b\nc", "-a/b"):
        with pytest.raises(RunError, match="is named OWNER/NAME"):
            pretrained.download(name, ["*.json"])
    offline = pytest.raises(DataError, match="switched off by the environment variable UNIDIFF_OFFLINE")
    with pytest.warns(UserWarning, match="hub:a/b is downloaded"), offline:
        codec_folder("hub:a/b")
    monkeypatch.delenv("UNIDIFF_OFFLINE")
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(RunError, match="1000 GB, and at most 40 GB are downloaded"):
        pretrained.download("a/b", ["*.json"])
