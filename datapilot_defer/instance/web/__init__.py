"""Web pages of an instance."""
