"""The chain of a study's ledger: what breaks it is found, what a crash tears is cut off."""

from __future__ import annotations

import json

import pytest

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.ledger import KEY_VARIABLE, Ledger, check_chain, read_ledger
from pgolf_sweep.core.paths import StudyPaths


@pytest.fixture
def paths(tmp_path):
    found = StudyPaths(tmp_path)
    Ledger(found).append([("proposal", "a", {"by": "ada"}), ("result", "0", {"val_bpb": 1.2})], 5.0)
    return found


def rewritten(paths, change):
    lines = [json.loads(line) for line in paths.ledger.read_text().splitlines()]
    change(lines)
    paths.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return check_chain(read_ledger(paths))


def test_entries_are_appended_once_by_whoever_writes(paths):
    first, second = Ledger(paths), Ledger(paths)
    assert first.append([("result", "0", {"val_bpb": 9.9}), ("result", "1", {})], 6.0) == 1
    assert second.append([("result", "2", {})], 7.0) == 1
    assert first.append([("result", "3", {}), ("result", "3", {})], 8.0) == 1
    entries = read_ledger(paths)
    assert [entry.key for entry in entries] == ["a", "0", "1", "2", "3"]
    assert entries[1].body == {"val_bpb": 1.2}
    assert check_chain(entries) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda lines: lines[1]["body"].update(val_bpb=1.0), "entry 1 (result 0) was changed"),
        (lambda lines: lines[0].update(at=1.0), "entry 0 (proposal a) was changed"),
        (lambda lines: lines.pop(0), "does not follow"),
        (lambda lines: lines.reverse(), "does not follow"),
    ],
)
def test_what_is_changed_removed_or_moved_is_found(paths, change, found):
    assert any(found in one for one in rewritten(paths, change))


def test_a_line_torn_by_a_crash_is_cut_off_and_written_again(paths):
    whole = paths.ledger.read_bytes()
    paths.ledger.write_bytes(whole + b'{"index": 2, "kind": "res')
    assert len(read_ledger(paths)) == 2
    Ledger(paths).append([("result", "1", {})], 6.0)
    assert check_chain(read_ledger(paths)) == []
    assert paths.ledger.read_bytes().startswith(whole)


def test_a_damaged_line_in_the_middle_is_named(paths):
    paths.ledger.write_text("{\n" + paths.ledger.read_text())
    with pytest.raises(InputError, match="damaged"):
        read_ledger(paths)


def test_signed_entries_hold_only_as_they_were_signed(tmp_path, monkeypatch):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    file = tmp_path / "key.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(pem)
    monkeypatch.setenv(KEY_VARIABLE, str(file))
    paths = StudyPaths(tmp_path)
    Ledger(paths).append([("result", "0", {}), ("result", "1", {})], 5.0)
    entries = read_ledger(paths)
    assert {entry.signer for entry in entries} == {key.public_key().public_bytes_raw().hex()}
    assert check_chain(entries) == []
    found = rewritten(paths, lambda lines: lines[1].update(signature=lines[0]["signature"]))
    assert found == ["entry 1 (result 1) has a false signature"]
    file.write_text("no key")
    with pytest.raises(InputError, match="key cannot be used"):
        Ledger(paths).append([("result", "2", {})], 6.0)
