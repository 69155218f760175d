"""The HTTP client for an instance."""
