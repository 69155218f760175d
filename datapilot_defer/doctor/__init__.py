"""Diagnosis of this machine, of an instance and of the way to it, step by step.

`machine_checks` needs no network, `network_checks` no token, `instance_checks` both. A step never
raises: what it finds is in its status and its detail.
"""
