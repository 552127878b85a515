"""Models as files: reading and writing folders, checking them, fetching them, and finding what MODEL names."""
