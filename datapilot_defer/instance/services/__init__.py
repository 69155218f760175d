"""Domain logic of an instance, without HTTP types."""
