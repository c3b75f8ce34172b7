"""Looking: what an encoder sees in a picture, what a probe made of it, what a kept head says of a new one."""
