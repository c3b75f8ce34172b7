"""The TIPSv2 training recipe."""
