"""What mixes values across tokens or within one: one file each, with its spec, module, state and books."""
