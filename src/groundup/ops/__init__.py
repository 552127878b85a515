"""Pure functions on tensors: each has a plain definition, ``reference``, and faster twins held equal to it."""
