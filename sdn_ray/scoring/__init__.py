"""Sets of captions and images streamed through Ray Data: drawn, scored, shown."""
