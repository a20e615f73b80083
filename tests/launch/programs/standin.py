"""A guard of the smallest kind, to test waking without the rest of allraise."""

import os
from array import array

from mpi4py import MPI

from allraise import channel
from allraise.interruptible import communicator
from allraise.ulfm import make_channel

channel.DIRECT_LIMIT = int(os.environ.get("STANDIN_DIRECT_LIMIT", "64"))


class Interrupted(Exception):
    pass


class Fault(Exception):
    pass


class Regions:
    def __init__(self, comm):
        self.private = comm.Dup()
        self.channel = make_channel(self.private, Interrupted)

    def run(self, block):
        """Run block(g.comm) on all ranks; return own exception, number of failed."""
        exc = None
        try:
            block(communicator(self.channel))
        except BaseException as error:
            exc = error
            self.channel.announce()
        mine, n_failed = array("i", [exc is not None]), array("i", [0])
        if self.channel.needs_relay:
            request = self.private.Iallreduce(mine, n_failed, MPI.SUM)
            self.channel.relay_until(request)
        else:
            self.private.Allreduce(mine, n_failed, MPI.SUM)
        if n_failed[0]:
            self.channel.drain()
        return exc, n_failed[0]
