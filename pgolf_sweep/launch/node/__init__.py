"""The part of a launcher that runs on the node, beside the trial."""
