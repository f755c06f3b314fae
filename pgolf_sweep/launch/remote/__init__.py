"""A driver that runs on the cluster as a Ray job."""
