"""An environment's artifacts, brought into a state directory."""
