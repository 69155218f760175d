"""The domain logic of an instance, without HTTP types."""
