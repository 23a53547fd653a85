"""Let sockets connect to this machine alone, where the system gives no network namespace.

This file is installed in the rehearsal's environment, with a .pth file that imports it whenever Python
starts. It stops Python code, pip included, but no compiled library that opens sockets of its own.
"""

import errno
import socket


def _is_local(address):
    if not isinstance(address, tuple):
        # The path of a Unix socket.
        return True
    host = address[0]
    host = host.decode() if isinstance(host, bytes) else str(host)
    return host in ("", "::1", "localhost", "0.0.0.0", "::") or host.startswith(("127.", "::ffff:127."))


def _refuse(address):
    if not _is_local(address):
        raise OSError(errno.ENETUNREACH, "Network is unreachable (as on Kaggle)")


class _Socket(socket.socket):
    def connect(self, address):
        _refuse(address)
        return super().connect(address)

    def connect_ex(self, address):
        return super().connect_ex(address) if _is_local(address) else errno.ENETUNREACH

    def sendto(self, data, *rest):
        _refuse(rest[-1])
        return super().sendto(data, *rest)


_getaddrinfo = socket.getaddrinfo


def _resolve(host, *rest, **named):
    if host is not None and not _is_local((host,)):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution (as on Kaggle)")
    return _getaddrinfo(host, *rest, **named)


# mypy allows no assignment to a class.
socket.socket = _Socket  # type: ignore[misc]
socket.getaddrinfo = _resolve
