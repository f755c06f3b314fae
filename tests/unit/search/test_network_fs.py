"""Network file systems, recognised by the list of mounts that Linux keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.search import network_fs
from pgolf_sweep.search import storage as storage_module
from pgolf_sweep.search.network_fs import network_file_system, network_file_system_of
from pgolf_sweep.search.study import open_study

TEXT = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:50 / /home rw,relatime shared:1 master:2 - nfs4 server:/home rw,vers=4.2
41 40 8:1 / /home/me/scratch rw,relatime - xfs /dev/sda1 rw
42 27 0:51 / /mnt/two\040words rw - cifs //server/share rw
43 27 0:52 / /mnt/over rw - nfs server:/a rw
44 43 8:2 / /mnt/over rw - ext4 /dev/sdb1 rw
45 27 0:53 / /mnt/c rw - 9p drvfs rw
46 27 0:54 / /mnt/ssh rw - fuse.sshfs me@server: rw
47 27 0:55 / /mnt/layers rw - fuse.fuse-overlayfs fuse-overlayfs rw
48 27 0:56 / /lustre rw - lustre mgs@tcp:/fs rw,flock
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/runs", None),
        ("/home/me/runs", "nfs4"),
        ("/home", "nfs4"),
        ("/homework/runs", None),
        ("/home/me/scratch/runs", None),
        ("/mnt/two words/runs", "cifs"),
        ("/mnt/over/runs", None),
        ("/mnt/c/Users/me", None),
        ("/mnt/ssh/runs", "fuse.sshfs"),
        ("/mnt/layers/runs", None),
        ("/lustre/me/not/there/yet", "lustre"),
    ],
)
def test_the_nearest_mount_decides(path, kind):
    assert network_file_system(Path(path), TEXT) == kind


def test_this_machine_is_asked_and_one_without_a_list_of_mounts_is_not(monkeypatch, tmp_path):
    assert network_fs.MOUNTINFO.is_file()
    assert network_file_system_of(tmp_path) is None
    monkeypatch.setattr(network_fs, "MOUNTINFO", tmp_path / "absent")
    assert network_file_system_of(tmp_path) is None


@pytest.mark.parametrize("storage", [None, "sqlite:///{folder}/study.db"])
def test_a_studys_file_on_a_network_is_refused_with_the_next_step(
    make_bench, monkeypatch, tmp_path, storage
):
    bench = make_bench()
    listed = tmp_path / "mountinfo"
    listed.write_text(f"{TEXT}50 27 0:5 / {tmp_path} rw - nfs4 a:/ rw")
    monkeypatch.setattr(network_fs, "MOUNTINFO", listed)
    url = storage and storage.format(folder=tmp_path)
    with pytest.raises(InputError, match="network file system") as refused:
        open_study(bench.session.spec, bench.paths, storage=url, write=True)
    assert refused.value.got == "nfs4"
    assert "--storage postgresql://" in refused.value.next_step
    assert "--runs" in refused.value.next_step
    assert not list(tmp_path.rglob("study.*db")) + list(tmp_path.rglob("study.journal"))
    monkeypatch.setattr(storage_module, "network_file_system_of", lambda _path: None)
    open_study(bench.session.spec, bench.paths, storage=url, write=True).close()
