"""Pulls of an environment's artifacts into a state directory."""
