"""From pictures to stored features: what is needed, encoded once, and kept."""
