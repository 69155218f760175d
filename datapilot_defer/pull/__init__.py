"""Pull the artifacts of an environment into a state directory."""
