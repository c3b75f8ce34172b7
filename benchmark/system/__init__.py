"""What every floor stands on: files, processes, digests, paths."""
