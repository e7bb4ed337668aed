"""Fetching from a server on this machine that breaks off, cannot continue, or sends the wrong bytes."""

import dataclasses
import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from data import download
from data.coco import CocoSpec, load
from data.download import Archive, fetch, fetch_coco, fetch_pennfudan, unpack


class Server(ThreadingHTTPServer):
    """Serves `files` by path. At most `limit` bytes an answer; ranges are honoured if `ranges`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.limit, self.ranges = 10**9, True
        self.asked: list[str | None] = []

    def archive(self, name: str, content: bytes) -> Archive:
        self.files[f"/{name}"] = content
        url = f"http://127.0.0.1:{self.server_address[1]}/{name}"
        return Archive(url, len(content), hashlib.sha256(content).hexdigest())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.headers.get("Range"))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        first = 0
        if self.server.ranges and self.headers.get("Range"):
            first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first : first + self.server.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "CHUNK", 100)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


CONTENT = np.random.default_rng(0).bytes(2500)


def get(archive, folder):
    return fetch(archive, folder, say=lambda _: None, pause=0.0).read_bytes()


def test_a_broken_connection_is_continued_where_it_ended(server, tmp_path):
    server.limit = 1000
    assert get(server.archive("a.zip", CONTENT), tmp_path) == CONTENT
    assert server.asked == [None, "bytes=1000-", "bytes=2000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_second_run_continues_after_the_first_was_killed(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:700])
    archive = server.archive("a.zip", CONTENT)
    assert get(archive, tmp_path) == CONTENT and server.asked == ["bytes=700-"]
    assert get(archive, tmp_path) == CONTENT and len(server.asked) == 1, "what is there is not fetched again"


def test_download_restarts_from_zero_if_the_server_cannot_continue(server, tmp_path):
    server.ranges = False
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:700])
    assert get(server.archive("a.zip", CONTENT), tmp_path) == CONTENT


def test_a_failing_connection_is_abandoned_without_losing_what_was_downloaded(server, tmp_path):
    server.limit = 10
    with pytest.raises(ValueError, match=r"connection ended after 50 of 2500 bytes; run again|IncompleteRead"):
        get(server.archive("a.zip", CONTENT), tmp_path)
    assert (tmp_path / "a.zip.part").stat().st_size == 50


@pytest.mark.parametrize(
    ("change", "message"), [({"sha256": "0" * 64}, "expected 0000"), ({"size": 2400}, "2400 bytes")]
)
def test_other_bytes_than_expected_are_refused(server, tmp_path, change, message):
    archive = dataclasses.replace(server.archive("a.zip", CONTENT), **change)
    with pytest.raises(ValueError, match=message):
        get(archive, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_and_a_full_disk_are_said_at_once(server, tmp_path):
    archive = server.archive("a.zip", CONTENT)
    del server.files["/a.zip"]
    with pytest.raises(ValueError, match="404"):
        get(archive, tmp_path)
    assert len(server.asked) == 1
    with pytest.raises(ValueError, match="make room"):
        get(dataclasses.replace(archive, size=10**18), tmp_path)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def test_coco_is_unpacked_once_and_archives_removed(server, tmp_path):
    archives = (
        server.archive("annotations.zip", zipped({"annotations/instances_val2017.json": b"{}"})),
        server.archive("val2017.zip", zipped({"val2017/1.jpg": b"1", "val2017/2.jpg": b"22"})),
    )
    fetch_coco(tmp_path, archives)
    fetch_coco(tmp_path, archives)
    assert len(server.asked) == 2
    assert (tmp_path / "val2017" / "2.jpg").read_bytes() == b"22" and not list(tmp_path.glob("*.zip"))


def test_members_stay_in_the_folder_and_damage_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "bad.zip").write_bytes(zipped({"../../out.txt": b"x"}))
    unpack(tmp_path / "bad.zip", tmp_path / "in")
    assert not (tmp_path / "out.txt").exists() and not (tmp_path.parent / "out.txt").exists()
    (tmp_path / "worse.zip").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"worse\.zip: expected a zip file"):
        unpack(tmp_path / "worse.zip", tmp_path / "in")


def test_pennfudan_becomes_a_coco_folder(server, tmp_path):
    files = {}
    for number in range(52):
        people = np.zeros((40, 50), np.uint8)
        people[5:20, 5:15], people[10:30, 20 : 30 + number % 5] = 1, 2
        for name, pixels in (("PNGImages/P{}.png", people * 100), ("PedMasks/P{}_mask.png", people)):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "png")
            files["PennFudanPed/" + name.format(f"{number:05d}")] = buffer.getvalue()
    fetch_pennfudan(tmp_path, server.archive("PennFudanPed.zip", zipped(files)))
    spec = CocoSpec(root=str(tmp_path), image_size=40, max_size=100)
    train, val = load(spec, "train"), load(spec, "val")
    assert (len(train), len(val), train.classes) == (2, 50, ["person"])
    sample = val[0]
    assert sample.labels.tolist() == [1, 1] and sample.boxes[0].tolist() == [5, 5, 15, 20]
    assert sample.masks[0].sum() == 150


def test_the_command_names_what_went_wrong(monkeypatch, tmp_path):
    def broken(root):
        raise ValueError("no room")

    monkeypatch.setitem(download.FETCHERS, "coco", broken)
    with pytest.raises(SystemExit, match="no room"):
        download.main(["coco", "--root", str(tmp_path)])
