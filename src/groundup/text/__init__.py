"""Text to token ids and back: training and loading tokenizers, chat templates, streaming decode."""
