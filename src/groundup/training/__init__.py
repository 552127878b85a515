"""The loop, budgets, checkpoints, and what becomes of freed memory."""
