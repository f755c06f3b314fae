"""A real Slurm in namespaces of this machine; `slurm_room.sh` says what it consists of."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from support.namespaces import PROJECT, Room, why_not

ROOM = Path(__file__).parent / "slurm_room.sh"


def why_no_slurm() -> str | None:
    """What keeps Slurm from running here, or None."""
    reason = why_not("slurmctld", "slurmd", "munged", "sbatch", "rsync")
    return reason and f"{reason} (Debian: slurmctld slurmd slurm-client munge rsync)"


class Slurm(Room):
    """A Slurm that runs while the context is open; its shared file system is a folder."""

    def __init__(self, folder: Path, *, nodes: int) -> None:
        self.shared = folder / "shared"
        self.shared.mkdir()
        super().__init__(folder, str(ROOM), str(nodes), str(self.shared), str(PROJECT))
        self.home = "/srv"  # as its nodes see the shared folder

    def __enter__(self) -> Self:
        """Start it, and wait until its nodes take jobs."""
        super().__enter__()
        try:
            self.wait_for(lambda: self.run("sinfo -h -o %T") == "idle", 90.0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def log(self) -> str:
        """What the daemons and the jobs said last."""
        files = [*self.shared.glob("log/*"), *self.shared.glob("*.log")]
        said = [f"== {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files]
        return "\n".join([super().log(), *said])
