"""The right to make a file or a folder: asked for before the work, held by one process at a time,
and given up with it. What is unfinished lies in `.<name>.partial/` beside the target:

    lock     held by the kernel for the process that works, so it goes when the process dies
    holder   who that is, in words
    new/     what will take the target's name when it is whole
    old/     what had that name, until the new one stands

A process that died left at most this folder, which the next one to ask takes over."""

import errno
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lrmoclip.core import files
from lrmoclip.core.errors import UserError

LOCK, HOLDER, NEW, OLD = "lock", "holder", "new", "old"
_SUFFIX = ".partial"
# What the system says where the user must make room or mend rights.
_UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG),
}


def partial_of(target: Path) -> Path:
    """Where what is unfinished of `target` lies."""
    target = Path(target)
    return target.parent / f".{target.name}{_SUFFIX}"


def is_unfinished(path: Path) -> bool:
    """Whether a path lies in what is unfinished of some target."""
    return any(p.name.startswith(".") and p.name.endswith(_SUFFIX) for p in path.parents)


class Hold:
    """The right to make `target`, from here until `release`.

    check: called with the lock held; raises UserError where the target must not be replaced.
    resumable: `new` outlives a release without `place`, for the next one to go on from; else
    what a dead process left there goes.

    UserError where another process works on the target, the check refuses, or nothing can be
    written beside it.
    """

    def __init__(
        self, target: Path, check: Callable[[Path], None], *, resumable: bool = False
    ) -> None:
        self.target, self.resumable = Path(target), resumable
        self.partial = partial_of(target)
        self.new, self._old = self.partial / NEW, self.partial / OLD
        self._made = [folder for folder in self.partial.parents if not folder.exists()]
        _refuse_places(self.target)
        check(self.target)
        try:
            self._lock = self._acquired()
        except OSError as error:
            raise unwritable(self.target, error) from error
        try:
            (self.partial / HOLDER).write_text(f"process {os.getpid()} on {socket.gethostname()}")
            self._recover()
            check(self.target)  # again: another may have made it since
        except BaseException as error:
            self.release()
            if isinstance(error, OSError):
                raise unwritable(self.target, error) from error
            raise

    def place(self) -> None:
        """Give `new` the target's name. What had it is moved aside first, and goes when the new one
        stands."""
        if self.target.is_dir():
            self.target.rename(self._old)
        self.new.replace(self.target)
        if self._old.exists():
            shutil.rmtree(self._old)

    def release(self) -> None:
        """Let others hold the target; leave only what can be gone on from. Twice is once."""
        if not self._lock.is_locked:
            return
        if not self.resumable:
            _remove(self.new)
        _remove(self.partial / HOLDER)
        _remove(self.partial / LOCK)
        self._lock.release()
        for folder in (self.partial, *self._made):
            # Unless there is something: the target, what can be gone on from, another's work.
            with suppress(OSError):
                folder.rmdir()

    def _acquired(self) -> FileLock:
        while True:
            self.partial.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.partial / LOCK, blocking=False)
            try:
                lock.acquire()
                return lock
            except Timeout:
                raise UserError(
                    f"{self.target}: {self._holder()} is writing it",
                    "Wait for it, or name another target",
                ) from None
            except FileNotFoundError:  # the one before us was just removing the folder
                continue

    def _holder(self) -> str:
        try:
            return (self.partial / HOLDER).read_text(encoding="utf-8") or "another process"
        except OSError:
            return "another process"

    def _recover(self) -> None:
        """What a process that died left: the old one goes back, if the new one does not stand."""
        if self._old.exists():
            if self.target.exists():
                shutil.rmtree(self._old)
            else:
                self._old.rename(self.target)
        if not self.resumable:
            _remove(self.new)


def unwritable(target: Path, error: Exception) -> UserError:
    return UserError(
        f"{target}: cannot be written ({error})", "Free disk space or mend the folder's rights"
    )


def is_about_writing(error: BaseException, below: Path) -> bool:
    """Whether an error is about what was written below a folder, not about what was read."""
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        return error.filename is None or str(below) in str(error.filename)
    return files.is_full(error)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _refuse_places(target: Path) -> None:
    """Refuse what is never one artefact: a link, a place that others live in."""
    home, here = (os.path.realpath(os.path.expanduser("~")), os.path.realpath("."))
    place, why = os.path.realpath(target), None
    if target.is_symlink():
        why = f"a link to {os.readlink(target)}"
    elif _is_around(place, here):
        why = "the working directory, or a folder around it"
    elif _is_around(place, home):
        why = "a home, or a folder around it"
    elif os.path.exists(os.path.join(place, ".git")):
        why = "the root of a repository"
    if why:
        raise UserError(f"{target}: {why}", "Name a place of its own")


def _is_around(outer: str, inner: str) -> bool:
    return os.path.commonpath([outer, inner]) == outer
