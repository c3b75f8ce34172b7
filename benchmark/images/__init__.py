"""Pictures: decoding, views, windows, drawing."""
