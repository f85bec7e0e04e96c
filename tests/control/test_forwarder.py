"""Ports of loopback that lead somewhere else."""

import socket

import pytest

from labrys.control.testing import forwarder


def test_bytes_go_both_ways_and_an_end_is_passed_on() -> None:
    with forwarder.listen() as node, forwarder.listen() as listener:
        forwarder.forward(listener, *node.getsockname())
        with socket.create_connection(listener.getsockname(), timeout=10) as client:
            server, _ = node.accept()
            with server:
                client.sendall(b"ask")
                assert server.recv(10) == b"ask"
                client.shutdown(socket.SHUT_WR)
                assert server.recv(10) == b""
                server.sendall(b"answer")
            assert client.recv(10) == b"answer"
            assert client.recv(10) == b""


def test_where_nobody_listens_the_connection_is_reset() -> None:
    with forwarder.listen() as gone:
        nobody = gone.getsockname()
    with forwarder.listen() as listener:
        assert forwarder.url(listener) == "http://{}:{}".format(*listener.getsockname())
        forwarder.forward(listener, *nobody)
        # The reset may come while the client still believes that it connects.
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(listener.getsockname(), timeout=10) as client,
        ):
            client.recv(10)
