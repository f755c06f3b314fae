"""The sweep file, its checks, and the contest's rules as presets."""
