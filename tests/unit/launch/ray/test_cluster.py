"""What Ray is started with."""

from __future__ import annotations

import pytest

from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.launch.ray import cluster


def test_long_temporary_folder_is_replaced_by_one_that_sockets_fit_into(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cluster.short_folder("/tmp") is None
    found = cluster.short_folder("/a" * 30)
    assert found is not None
    assert len(found) < 30
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InfraError, match="too long") as caught:
        cluster.short_folder("/a" * 30)
    assert "TMPDIR" in (caught.value.next_step or "")
