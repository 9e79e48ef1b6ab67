"""From flags, YAML and arguments to checked values; from errors to exit codes."""
