"""resolve → plan → extract → run → save: everything between the words of a command and a row on disk."""
