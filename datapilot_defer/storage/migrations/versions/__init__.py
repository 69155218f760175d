"""The steps, numbered in their order.

Each one works with the previous release: it adds tables and columns, and never renames or drops
one that the previous release uses. What a release no longer uses, a later one drops. That step
raises `compatible_from`.
"""
