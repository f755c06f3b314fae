"""What keeps a probed script within its process and folder, without privileges."""
