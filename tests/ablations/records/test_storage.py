"""A record is read as it was written, or refused."""

import json

import pytest

from ablations.errors import DamagedRecord, RecordError
from ablations.records.storage import load_run, load_study, save
from tests.damage import edit_record, flip_bit
from tests.reports.conftest import run_record, study_record


def test_no_bit_of_a_record_changes_unnoticed(tmp_path):
    path, other = tmp_path / "run.json", tmp_path / "other.json"
    save(run_record("pool16", 0), path)
    record, content = load_run(path), path.read_bytes()
    damaged = 0
    for bit in range(0, 8 * len(content), 7):
        other.write_bytes(content)
        flip_bit(other, bit)
        try:
            assert load_run(other) == record  # only its layout has changed
        except DamagedRecord as error:
            damaged += 1
            assert f"{other}: damaged" in str(error)
        except RecordError:
            pass
    assert damaged > 100


def test_the_digest_is_of_the_content_and_not_of_its_layout(tmp_path):
    path = tmp_path / "study.json"
    save(study_record(), path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items()))))
    assert load_study(path) == study_record() and len(load_study(path).digest) == 64
    path.write_text(path.read_text().replace("3.4", "8.4", 1))
    with pytest.raises(DamagedRecord, match="not what was written"):
        load_study(path)


def test_records_of_older_versions_have_no_digest(tmp_path):
    path = tmp_path / "run.json"
    save(run_record("pool16", 0), path)
    edit_record(path, lambda record: record["metrics"]["segm"].update(AP=1.0))
    assert load_run(path).metric("segm.AP") == 1.0 and load_run(path).digest == ""
