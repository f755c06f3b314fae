"""The search space: one domain a knob, conditions and requirements between them."""
