"""The migrations, numbered in order.

The previous release must work with the result of each migration. A migration adds tables and
columns, but never renames or drops any that the previous release uses. Once no release uses them, a
later migration drops them and raises `compatible_from`.
"""
