"""The training loop and what it stands on: devices and number formats, memory, files and checkpoints."""
