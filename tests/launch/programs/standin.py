"""Run blocks in a guard, and tell how they ended on this rank."""

import os

import allraise
from allraise import channel
from allraise.creation import private_of

channel.DIRECT_LIMIT = int(os.environ.get("STANDIN_DIRECT_LIMIT", "64"))

Interrupted = allraise.PeerFailure


class Fault(Exception):
    pass


class Regions:
    def __init__(self, comm):
        self.comm = comm.Dup()
        self.private = private_of(self.comm)

    @property
    def channel(self):
        return self.private.channel

    def run(self, block):
        """Run block(g.comm) on all ranks; return own exception, number of stopped."""
        exc = None
        try:
            with allraise.guard(self.comm, everywhere=True) as g:
                try:
                    block(g.comm)
                except BaseException as error:
                    exc = error
                    raise
        except allraise.CheckpointException as outcome:
            return exc, len(outcome.bundle.ranks)
        return exc, 0
