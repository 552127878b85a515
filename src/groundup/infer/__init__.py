"""Text from models: how the next token is chosen, the one loop that asks for it, and the model as users meet it."""
