"""Harnesses, fixtures and fault injection for the tests."""
