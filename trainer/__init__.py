"""The contest's baseline as a package of small modules; `bundle` joins them into one file.

Run it as ``python -m trainer.train``. Every knob is an environment variable (`trainer.config`),
every result a line on stdout (`trainer.train`). Importing this package imports nothing heavy;
config, schedule, data, quantize and artifact do without torch.
"""
