"""The DNS servers under test: one module and one class each, all of them listed here.

A new server is a subclass of `servers.base.Server` and a line in `ALL`; the tests of `test_servers.py` then run on it.
"""

from .unbound import Unbound

ALL = [Unbound]
