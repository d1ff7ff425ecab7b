"""Every error a user can meet: what happened, what to do next, and the exit status it ends with."""

from __future__ import annotations

import re
from enum import IntEnum

from typing_extensions import Self

_LOGIN = re.compile(r"(:/{1,2})[^/\s]*@")  # of an address, also one that was taken for a path
_SIGNATURE = re.compile(
    r"([?&;][\w.-]*(?:sig|token|secret|password|key|credential)[\w.-]*=)[^\s&;]*", re.IGNORECASE
)
_SECRET_NAME = re.compile(r"token|secret|password|api_?key|access_?key", re.IGNORECASE)


def public(text: str) -> str:
    """Leave out of addresses what they may hold of passwords and signatures: messages are read by others."""
    return _SIGNATURE.sub(r"\1***", _LOGIN.sub(r"\1", text))


def shown_value(name: str, value: str) -> str:
    """Hide what may be a key or token: ClearML gets it, as from the callback, but terminals are logged."""
    return "***" if value and _SECRET_NAME.search(name) else value


class Exit(IntEnum):
    """Exit statuses of the command line; the numbers above 64 are those of BSD's sysexits."""

    OK = 0
    OURS = 1
    USAGE = 2
    SOME_FAILED = 3
    UNREACHABLE = 69
    BUSY = 75
    REFUSED = 77
    NOT_CONFIGURED = 78
    INTERRUPTED = 130
    TERMINATED = 143


class YoloClearmlError(Exception):
    """Base of all errors meant for a person.

    ``str(error)`` is a sentence about what happened, ``hint`` one about what to do next.
    ``fatal`` is whether the other runs of the same call would meet it too, ``outage`` whether it will
    pass by itself, for all runs at the same time. Neither sentence holds a password of an address.
    """

    status: Exit = Exit.SOME_FAILED
    fatal: bool = False
    outage: bool = False

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(public(text))
        self.hint = public(hint)

    def afresh(self) -> Self:
        """Give the same error to raise once more: an error raised twice keeps every frame it went through."""
        again = type(self).__new__(type(self))
        again.args = self.args
        again.__dict__.update(self.__dict__)
        return again

    def after(self, text: str) -> Self:
        """Give the same error with a sentence before it, of what was done before it came."""
        again = self.afresh()
        again.args = (f"{text} {self}",)
        again.__cause__ = self.__cause__
        return again


class OurFault(YoloClearmlError):
    """Something happened over one run that nobody foresaw; ``__cause__`` is what."""

    status = Exit.OURS

    @classmethod
    def over(cls, fault: Exception) -> OurFault:
        """Give the error of a run over which this was raised; no other run is to blame."""
        error = cls(
            f"Unforeseen {type(fault).__name__}: {fault}.",
            "This is a fault of yolo-clearml's own; report it.",
        )
        error.__cause__ = fault
        return error


class UsageError(YoloClearmlError):
    """A path or an option that cannot be meant."""

    status = Exit.USAGE


class RunUnreadable(YoloClearmlError):
    """A run directory holds something that cannot be understood or must not be touched."""


class RunGone(RunUnreadable):
    """A run directory was moved or deleted since it was found."""


class RunHeldOpen(RunUnreadable):
    """Another program keeps a file of the run to itself, as Windows lets it; this passes."""


class RunChanged(YoloClearmlError):
    """A file changed between being looked at and being sent; the next pass sends its new content."""


class LedgerUnwritable(YoloClearmlError):
    """Neither the run directory nor the state directory takes the ledger."""


class RunBusy(YoloClearmlError):
    """Another process is at work on the same run."""

    status = Exit.BUSY


class NotConfigured(YoloClearmlError):
    """ClearML knows neither a server nor credentials."""

    status = Exit.NOT_CONFIGURED
    fatal = True


class NoTemporaryFolder(YoloClearmlError):
    """No folder takes a temporary file, of which ClearML's SDK and matplotlib need one to be imported."""

    status = Exit.NOT_CONFIGURED

    def __init__(self) -> None:
        super().__init__(
            "There is no folder for temporary files that can be written.", "Set TMPDIR to one that can."
        )


class CredentialsRefused(YoloClearmlError):
    """The server does not accept the key pair."""

    status = Exit.REFUSED
    fatal = True


class ServerUnreachable(YoloClearmlError):
    """The API server does not answer, answers nonsense, or keeps failing."""

    status = Exit.UNREACHABLE
    fatal = True
    outage = True


class ServerFailing(ServerUnreachable):
    """The API server answers, but fails over one request again and again; others may fare better."""

    fatal = False
    outage = False


class HoldsLess(YoloClearmlError):
    """The directory holds less of its run than ClearML does; its text goes on after "it"."""


class FileServerUnreachable(YoloClearmlError):
    """The file server or storage does not take files; what needs no file was delivered."""

    status = Exit.UNREACHABLE
    outage = True


class FileServerFailing(FileServerUnreachable):
    """The file server answers that it is at fault, which may be over this very file alone."""


class FileNotTaken(FileServerUnreachable):
    """The file server answered, but did not take or give this very file; another one may fare better."""

    outage = False


class FileElsewhere(FileNotTaken):
    """A storage that is not ClearML's file server does not give a file; this machine may never reach it."""


class ServerRefused(YoloClearmlError):
    """The server understood a request and refused it."""


class TaskOffLimits(YoloClearmlError):
    """The task is published, aborted or closed: a person's decision that is not overruled."""
