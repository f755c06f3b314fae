"""Network file systems, recognised by the list of mounts that Linux keeps."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

NETWORK = frozenset(
    {"nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "coda"}
    | {"lustre", "gpfs", "beegfs", "ceph", "glusterfs", "orangefs", "pvfs2", "panfs", "wekafs"}
    | {"ocfs2", "gfs2"}
    | {f"fuse.{name}" for name in ("sshfs", "glusterfs", "ceph", "ceph-fuse", "juicefs", "rclone")}
    | {f"fuse.{name}" for name in ("s3fs", "gcsfuse", "goofys", "blobfuse", "blobfuse2")}
)
"""File systems on which several machines see one folder, each through a cache of its own.

9p, virtiofs and plain FUSE are left out: they are how virtual machines and containers see a folder
of their own host (WSL, gVisor, overlays without root), and refusing them would refuse those.
"""


def network_file_system(path: Path, mountinfo: str) -> str | None:
    """Type of the network file system that holds a path, or None where it is a local one.

    Args:
        path: Absolute and resolved; it need not exist.
        mountinfo: Text of ``/proc/self/mountinfo``. Source: Linux, proc_pid_mountinfo(5).
    """
    kind, longest = "", -1
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if not after:
            continue
        point = Path(_unescaped(before.split(" ")[4]))
        # Of two mounts on one point the later one is seen.
        if path.is_relative_to(point) and len(point.parts) >= longest:
            kind, longest = after.split(" ")[0], len(point.parts)
    return kind if kind in NETWORK else None


def network_file_system_of(path: Path) -> str | None:
    """`network_file_system` on this machine; None where there is no such list of mounts."""
    try:
        return network_file_system(path.resolve(), MOUNTINFO.read_text())
    except OSError:
        return None


def _unescaped(text: str) -> str:
    """A mount point as it is: blanks and the like are written as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
