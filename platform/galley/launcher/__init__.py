"""Starts the parts of one copy of Galley, watches them and ends them.

Imports nothing but the standard library, so that settings and the tests can use it early.
"""
