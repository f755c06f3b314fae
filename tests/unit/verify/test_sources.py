"""Folders of a zip, of a commit and of a pull request's checkout; what leaves them is refused."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from typing import TYPE_CHECKING

import pytest
from support.repositories import git
from typer.testing import CliRunner

from pgolf_sweep.cli import verify as _  # noqa: F401 - registers the command
from pgolf_sweep.cli.common import app
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.submission.folder import read_folder
from pgolf_sweep.submission.reading import FolderReader
from pgolf_sweep.verify import sources
from pgolf_sweep.verify.git import changed_folders
from pgolf_sweep.verify.sources import opened
from pgolf_sweep.verify.verify import NON_RECORD_RULES, rules_for, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def zipped(path: Path, folder: Path, top: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{top}{file.relative_to(folder)}")
    return path


def verdicts(folder: Path) -> dict[str, str]:
    return {check.rule: check.verdict.value for check in verify(folder).checks}


# -- zip --------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", ["", "mine/", "records/demo/mine/"])
def test_a_zip_is_judged_like_its_folder(good: Path, tmp_path: Path, top: str) -> None:
    path = zipped(tmp_path / "mine.zip", good, top)
    with opened(str(path)) as folder:
        assert verdicts(folder) == verdicts(good)
    assert not folder.exists()


def written(path: Path, name: str, content: bytes = b"x", mode: int = stat.S_IFREG) -> Path:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (mode | 0o644) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, content)
    return path


@pytest.mark.parametrize(
    "name", ["", "../out", "/etc/out", "a/../../out", "n" * 300, "a/" * 600 + "b"]
)
def test_a_name_that_leaves_the_zip_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "a.zip", name)
    with pytest.raises(InputError, match="leaves the folder"), opened(str(path)):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.zip", "train.log", b"/etc/passwd", stat.S_IFLNK)
    with pytest.raises(InputError, match="a link"), opened(str(path)):
        pass


def test_a_zip_of_more_files_or_bytes_than_a_submission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(5_001):
            archive.writestr(str(number), b"")
    large = tmp_path / "large.zip"
    with zipfile.ZipFile(large, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.log", bytes(2_000_000))
    monkeypatch.setattr(sources, "MOST_BYTES_IN_ALL", 1_000_000)
    for path in (many, large):
        with pytest.raises(InputError, match="larger than a submission"), opened(str(path)):
            pass


def test_sizes_of_a_zip_are_counted_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.log", bytes(2_000_000))
    data = path.read_bytes()
    path.write_bytes(data.replace((2_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    monkeypatch.setattr(sources, "MOST_BYTES_IN_ALL", 1_000_000)
    with pytest.raises(InputError), opened(str(path)):
        pass


def cut(data: bytes) -> bytes:
    return data[:200] + data[-200:]


def twice(data: bytes) -> bytes:
    return data.replace(b"b.log", b"a.log")


@pytest.mark.parametrize("broken", [cut, twice, lambda data: data[:20], lambda data: data[:0]])
def test_a_broken_zip_is_wrong_input(tmp_path: Path, broken: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.log", b"x" * 400)
        archive.writestr("b.log", b"x" * 400)
    path.write_bytes(broken(path.read_bytes()))
    with pytest.raises(InputError), opened(str(path)):
        pass


# -- a commit ---------------------------------------------------------------------------------


def test_a_commit_is_judged_like_its_folder(good: Path, repository: Path) -> None:
    git(repository, "checkout", "--quiet", "main")
    assert not (repository / "records" / "demo" / "second").exists()
    with opened(f"{repository}@mine:records/demo/second/") as folder:
        assert verdicts(folder) == verdicts(good)
        with_git = FolderReader.of(folder).sizes
    assert with_git == FolderReader.of(good).sizes
    assert git(repository, "status", "--porcelain") == ""


def test_a_bare_repository_and_the_track_of_a_path_are_read(
    repository: Path, tmp_path: Path
) -> None:
    moved = repository / "records" / "track_non_record_16mb"
    (repository / "records" / "demo").rename(moved)
    for manifest in moved.glob("*/submission.json"):
        said = json.loads(manifest.read_text())
        said.pop("rules", None)
        manifest.write_text(json.dumps(said | {"track": ""}))
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "moved")
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(bare))
    with opened(f"{bare}@mine:records/track_non_record_16mb/first") as folder:
        assert rules_for(read_folder(folder)).name == NON_RECORD_RULES


def test_a_link_in_a_commit_is_named_as_in_a_checkout(repository: Path) -> None:
    second = repository / "records" / "demo" / "second"
    (second / "extra.log").symlink_to("/etc/passwd")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "a link")
    with opened(f"{repository}@HEAD:records/demo/second") as folder:
        assert verdicts(folder) == verdicts(second)
        assert verdicts(folder)["readable"] == "fail"


def test_a_commit_larger_than_a_submission_is_refused(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST_BYTES_IN_ALL", 100_000)
    with (
        pytest.raises(InputError, match="larger than a submission"),
        opened(f"{repository}@mine:records/demo/second"),
    ):
        pass


@pytest.mark.parametrize(
    "rest", ["nowhere:records", "mine:nowhere", "mine:train_gpt.py", "--all:", ":"]
)
def test_no_such_ref_or_folder_is_wrong_input(repository: Path, rest: str) -> None:
    with pytest.raises(InputError, match="no such folder in the repository"):  # noqa: SIM117
        with opened(f"{repository}@{rest}"):
            pass


# -- a pull request's checkout ----------------------------------------------------------------


def test_changed_finds_the_folder_that_a_branch_adds(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "main")
    shutil.copytree(repository / "records/demo/first", repository / "records/demo/third")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "main goes on")
    git(repository, "checkout", "--quiet", "mine")
    (repository / "train_gpt.py").write_text("print('tuned')\n")
    assert changed_folders("main", repository / "records") == [repository / "records/demo/second"]


def test_changed_finds_folders_without_manifest_changed_ones_and_those_elsewhere(
    repository: Path,
) -> None:
    (repository / "records/demo/second/submission.json").unlink()
    log = next((repository / "records/demo/first").glob("*.log"))
    log.write_text(log.read_text() + "\n")
    (repository / "mine" / "logs").mkdir(parents=True)
    (repository / "mine" / "submission.json").write_text("{}")
    (repository / "mine" / "logs" / "a.log").write_text("a")
    git(repository, "add", ".")  # as a commit hook sees it
    names = [str(p.relative_to(repository)) for p in changed_folders("main", repository)]
    assert names == ["mine", "records/demo/first", "records/demo/second"]


def test_changed_verifies_what_it_finds(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    done = CliRunner().invoke(app, ["verify", "--changed", "main", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [one["folder"] for one in document["folders"]] == [
        str(repository / "records/demo/second")
    ]
    (repository / "records/demo/second/README.md").unlink()
    done = CliRunner().invoke(app, ["verify", "--changed", "main", "--json"])
    assert done.exit_code == 1
    done = CliRunner().invoke(app, ["verify", "--changed", "mine", "--json"])
    assert done.exit_code == 1  # not committed, and yet seen
    git(repository, "checkout", "--quiet", ".")
    done = CliRunner().invoke(app, ["verify", "--changed", "mine", "--json"])
    assert json.loads(done.stdout) == {"ok": True, "folders": []}


def test_no_checkout_no_base_and_no_common_commit_are_wrong_input(
    repository: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="not in a git checkout"):
        changed_folders("main", tmp_path)
    with pytest.raises(InputError, match="in common"):
        changed_folders("origin/main", repository)
    git(repository, "checkout", "--quiet", "--orphan", "alone")
    git(repository, "commit", "--quiet", "--message", "alone")
    with pytest.raises(InputError, match="in common") as caught:
        changed_folders("main", repository)
    assert "fetch-depth: 0" in str(caught.value.next_step)
