"""Packs a study into an archive from which others can write the same report, and unpacks such archives.

python -m ablations.export STUDY [--out FILE.zip] [--weights]     records, detections, samples, exhibits and the report
python -m ablations.export --unpack FILE.zip [--outputs FOLDER]   for `python -m reports STUDY`

The same records give the same bytes. Unpacking executes and unpickles nothing: an archive may hold only the files that
a study consists of, and its records only plain text. Studies of your own never reuse unpacked runs, whose values may
have been edited, unless they were unpacked with --trust.
"""

import argparse
import dataclasses
import re
import shutil
import stat
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ablations.errors import RecordError
from ablations.execution.report import ReportError, write_report
from ablations.records.schema import SNAPSHOTS, WEIGHTS
from ablations.records.storage import UNPACKED, as_json, load_run, load_status, load_study
from data.terminal import run_command

FORMAT = 1
RUN_FILES = ("*/seed*/*.json", "*/seed*/*.jsonl", "*/seed*/*.yaml")
PATTERNS = ("*.json", "samples/*.png", "exhibits/*.json", "exhibits/*/*.jpg", "exhibits/*/*.png", *RUN_FILES)
WEIGHT_FILES = (WEIGHTS, "proposals.safetensors", SNAPSHOTS)
"""The weights of a run; a checkpoint, from which a run would be continued, is neither packed nor unpacked."""
REPORT = "report"

NAME = re.compile(r"[A-Za-z0-9_=,-][A-Za-z0-9_.=,-]*")
"""Permitted names of folders and files."""
SUFFIXES = {".json", ".jsonl", ".yaml", ".png", ".jpg", ".safetensors", ".md", ".html", ".csv", ".svg"}
TIME = (1980, 1, 1, 0, 0, 0)
MOST_FILES = 200_000


class ExportError(ValueError):
    """A study that cannot be packed or unpacked: what was expected, what was given, what to do."""


def pack(study: Path, archive: Path, weights: bool = False, report: Path | None = None) -> int:
    """Writes the study in folder `study`, and its report if there is one, to `archive`; returns the number of files.

    Raises ExportError or RecordError for records that nobody could unpack, before anything is written.
    """
    _check_records(study)
    patterns = (*PATTERNS, *(f"*/seed*/{name}" for name in WEIGHT_FILES)) if weights else PATTERNS
    files = {path.relative_to(study).as_posix(): path for pattern in patterns for path in study.glob(pattern)}
    if report is not None:
        pages = (path for path in report.rglob("*") if path.is_file())
        files |= {f"{REPORT}/{path.relative_to(report).as_posix()}": path for path in pages}
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(f".{archive.name}.tmp")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as target:
            target.comment = f"ablation study, format {FORMAT}".encode()
            for name, path in sorted(files.items()):
                entry = zipfile.ZipInfo(f"{study.name}/{name}", TIME)
                entry.compress_type = zipfile.ZIP_STORED if path.suffix in (".png", ".jpg") else zipfile.ZIP_DEFLATED
                entry.create_system, entry.external_attr = 3, 0o644 << 16
                target.writestr(entry, _content(path))
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)
    return len(files)


def _content(path: Path) -> bytes:
    """The content to pack of a file: a status is packed without the name of the machine."""
    status = load_status(path) if path.name == "status.json" else None
    if status is None:
        return path.read_bytes()
    return as_json(dataclasses.replace(status, pid=0, host="")).encode()


def unpack(archive: Path, outputs: Path, most_bytes: int, trust: bool = False) -> Path:
    """Unpacks a study into `outputs`, which must not have one of that name; returns its folder.

    trust: its runs count as finished runs of one's own; without it they are marked as those of others.
    Raises ExportError, and leaves nothing behind, if the archive holds anything but a study or more than `most_bytes`.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            name = _checked(source, most_bytes)
            target = outputs / name
            if target.exists():
                raise ExportError(
                    f"{target}: expected no study of that name, got one; use --outputs with another folder"
                )
            outputs.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(outputs).free
            if sum(entry.file_size for entry in source.infolist()) > free:
                raise ExportError(f"{archive}: expected room on the disk, got {free / 1e9:.1f} GB; make room")
            partial = Path(tempfile.mkdtemp(prefix=".unpack-", dir=outputs))
            try:
                for entry in source.infolist():
                    if entry.filename.startswith(f"{name}/{REPORT}/"):
                        continue  # pages from others are not unpacked: the records give the same report
                    path = partial / entry.filename
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with source.open(entry) as packed, path.open("wb") as file:
                        shutil.copyfileobj(packed, file)
                _check_records(partial / name)
                for folder in () if trust else [path.parent for path in partial.rglob("run.json")]:
                    (folder / UNPACKED).write_text(f"{archive.name}\n", encoding="utf-8")
                (partial / name).rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise ExportError(f"{archive}: expected a zip archive of a study, got one that is damaged ({error})") from error
    return target


def _checked(source: zipfile.ZipFile, most_bytes: int) -> str:
    """The name of the study that the archive holds. Raises ExportError if it holds anything else."""
    entries = source.infolist()
    size = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_FILES or size > most_bytes:
        expected = f"at most {MOST_FILES} files and {most_bytes / 1e9:.1f} GB"
        raise ExportError(f"expected {expected}, got {len(entries)} and {size / 1e9:.1f} GB; --limit allows more")
    if len({entry.filename.lower() for entry in entries}) < len(entries):
        raise ExportError("expected each name only once, got one several times; nothing was unpacked")
    for entry in entries:
        # An entry is a regular file (mode 0 if the packing system has no modes), or it could be a link to anywhere.
        regular = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)
        path = PurePosixPath(entry.filename)
        plain = entry.filename == str(path) and all(NAME.fullmatch(part) for part in path.parts)
        known = path.suffix in SUFFIXES and (path.suffix != ".safetensors" or any(map(path.match, WEIGHT_FILES)))
        if not (regular and plain and known and 2 <= len(path.parts) <= 5):
            raise ExportError(f"expected only files of a study, got {entry.filename!r}; nothing was unpacked")
    tops = {entry.filename.partition("/")[0] for entry in entries}
    if len(tops) != 1 or f"{next(iter(tops))}/study.json" not in source.namelist():
        raise ExportError(f"expected one study with its study.json, got {sorted(tops) or 'nothing'}")
    return tops.pop()


def _check_records(folder: Path) -> None:
    """Raises ExportError or RecordError unless the records can be read and name nothing outside their study."""
    study = load_study(folder / "study.json")
    names = [study.name, *study.arms, *study.exhibits]
    strange: list[object] = [name for name in names if not (isinstance(name, str) and NAME.fullmatch(name))]
    strange += [number for number in [*study.seeds, *study.sample_image_ids] if not isinstance(number, int)]
    if study.name != folder.name or strange:
        raise ExportError(f"study.json: expected study {folder.name} with plain names, got {study.name!r}, {strange}")
    for path in folder.glob("*/seed*/run.json"):
        load_run(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ablations.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("study", nargs="?", help="the study to pack")
    what.add_argument("--unpack", type=Path, metavar="FILE", help="the archive to unpack")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder of the studies")
    parser.add_argument("--out", type=Path, help="the archive to write (default: STUDY.zip)")
    parser.add_argument("--weights", action="store_true", help="include the trained weights")
    parser.add_argument("--limit", type=float, default=4.0, metavar="GB", help="refuse to unpack more than this")
    parser.add_argument(
        "--trust", action="store_true", help="reuse the unpacked runs, if they have weights, like your own"
    )
    options = parser.parse_args(arguments)
    try:
        if options.unpack:
            folder = unpack(options.unpack, options.outputs, int(options.limit * 1e9), options.trust)
            print(f"{folder}; its report: python -m reports {folder.name} --outputs {options.outputs}")
            return 0
        study, archive = options.outputs / options.study, options.out or Path(f"{options.study}.zip")
        load_study(study / "study.json")
        with tempfile.TemporaryDirectory() as report:
            write_report(study, Path(report))
            count = pack(study, archive, options.weights, Path(report))
        print(f"{archive}: {count} files, {archive.stat().st_size / 1e6:.1f} MB")
    except (ExportError, ReportError, RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_command(main)
