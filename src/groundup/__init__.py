"""Build language models from the ground up, and know before you start what it will take."""
