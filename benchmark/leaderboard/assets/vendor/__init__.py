"""Third-party scripts, unchanged, each with its licence beside it."""
