"""Diagnosis of this machine, of the network and of an instance, in steps.

`machine_checks` needs no network, `network_checks` no token, `instance_checks` both. A step never
raises: its status and detail contain the result.
"""
