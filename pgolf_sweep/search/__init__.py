"""What is searched (`space`, `parameters`, `parse`), by whom (`study`, `sampler`, `pruner`)."""
