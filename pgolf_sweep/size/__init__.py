"""How many bytes a configuration's artifact will have, before it is trained."""
