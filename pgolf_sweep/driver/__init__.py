"""The loop of a sweep: ask, gate, launch, poll, report, tell."""
