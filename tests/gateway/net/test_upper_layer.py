import socket

from pynetdicom import AE
from pynetdicom.association import MODE_ACCEPTOR, Association

from gateway.clock import SystemClock
from gateway.net.upper_layer import GuardedSocket, harden


def test_an_event_out_of_place_ends_the_connection_and_not_the_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname(), 5)
        ours, _ = server.accept()
    with ours, theirs:
        association = Association(AE(), MODE_ACCEPTOR)
        association.set_socket(GuardedSocket(association, SystemClock(), stall_s=1.0, client_socket=ours))
        harden(association)
        machine = association.dul.state_machine
        machine.current_state = "Sta13"  # an A-ABORT was sent; the close of the transport is awaited
        machine.do_action("Evt15")  # and we abort once more
        theirs.settimeout(5)

        assert theirs.recv(1) == b""
        assert machine.current_state == "Sta13"
