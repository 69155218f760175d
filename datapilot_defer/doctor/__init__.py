"""Diagnosis of this machine, of the network and of an instance, in steps.

`machine_checks` needs neither a network nor a token, `network_checks` needs no token, and most
steps of `instance_checks` need a network and a token. A step never raises an error: its status and
detail contain the result.
"""
