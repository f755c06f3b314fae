"""The artifact's bytes before training: predict, decide, repair, learn."""
