"""The web pages of an instance."""
