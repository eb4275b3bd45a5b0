"""What mioloop leans on in CPython: a table of private names, and of numbers that Rust repeats.

Owns the table alone; `test_seam.py` checks it, on the running Python, and that it is complete.

Rules: a line that nothing needs any more is removed. Nothing here imports mioloop.
"""

from __future__ import annotations

import asyncio
from asyncio import constants, events, selector_events, sslproto, unix_events
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """Names of one place in CPython, for the Pythons from `since` to the last before `before`."""

    kind: str
    place: str
    names: tuple[str, ...]
    since: tuple[int, ...] = (3, 11)
    before: tuple[int, ...] = (4,)

    def __str__(self) -> str:
        return f"{self.place} {self.kind} {self.names[0].partition('(')[0]}"


def has(place: str, *names: str, **versions: Any) -> Line:
    """A module or a class has them; `name(a, b, c=d)` says how it is called."""
    return Line("has", place, names, **versions)


def asks(place: str, *names: str, **versions: Any) -> Line:
    """The code of a module asks our objects for them."""
    return Line("asks for", place, names, **versions)


LOOP = "asyncio.SelectorEventLoop"
STREAM = "asyncio.selector_events._SelectorSocketTransport"
SUBPROCESS = "asyncio.base_subprocess.BaseSubprocessTransport"
TABLE = [
    # What Rust and Python call, read or set.
    has("asyncio.base_events", "_format_handle(handle)", "logger"),
    has(LOOP, "_asyncgen_firstiter_hook(agen)", "_asyncgen_finalizer_hook(agen)"),
    has(LOOP, "_set_coroutine_origin_tracking(enabled)", "_check_callback(callback, method)"),
    has(LOOP, "_default_executor", "_executor_shutdown_called"),
    has(LOOP, "_check_thread()", "_check_closed()", "_check_signal(sig)", "_sock_read_done"),
    has("asyncio.base_events.Server", "_attach()", "_detach()", before=(3, 13)),
    has("asyncio.base_events.Server", "_attach(stream)", "_detach(stream)", since=(3, 13)),
    has("asyncio.constants", "SSL_HANDSHAKE_TIMEOUT", "SSL_SHUTDOWN_TIMEOUT", "_SendfileMode"),
    has("asyncio.coroutines", "_iscoroutinefunction(callback)", since=(3, 14)),
    has("asyncio.events", "_get_running_loop()", "_set_running_loop(loop)"),
    has("asyncio.events", "Handle(callback, args, loop, context)"),
    has("asyncio.events", "_ThreadSafeHandle(callback, args, loop, context)", since=(3, 14)),
    has("asyncio.events", "TimerHandle(when, callback, args, loop, context)"),
    has("asyncio.events.Handle", "_run()", "_cancelled", "_source_traceback"),
    has("asyncio.events.TimerHandle", "_scheduled"),
    has("asyncio.format_helpers", "_format_callback_source(function, args)"),
    has("asyncio.futures", "_set_result_unless_cancelled(waiter, result)"),
    has("asyncio.Future", "_asyncio_future_blocking"),
    has("asyncio.selector_events", "logger", "_SelectorDatagramTransport"),
    has("asyncio.sslproto", "_create_transport_context(server_side, hostname)"),
    has("asyncio.sslproto", "_SSLProtocolTransport", "logger"),
    has("asyncio.streams.StreamReader", "_buffer", "_eof", "_limit", "_paused", "_transport"),
    has("asyncio.streams.StreamReader", "_waiter", "_wakeup_waiter()"),
    has("asyncio.streams.StreamReaderProtocol", "_stream_reader", "_stream_reader_wr"),
    has("asyncio.transports", "_FlowControlMixin"),
    has("asyncio.trsock", "TransportSocket(sock)"),
    has(SUBPROCESS, "_connect_pipes(waiter)", "_process_exited(returncode)"),
    has(SUBPROCESS, "_closed", "_pending_calls", "_pipes", "_proc"),
    has("asyncio.unix_events", "_DefaultEventLoopPolicy()", since=(3, 14)),
    has("asyncio.unix_events", "_ThreadedChildWatcher()", since=(3, 14)),
    has("asyncio.unix_events", "_UnixDefaultEventLoopPolicy()", before=(3, 14)),
    has("asyncio.unix_events", "_UnixSubprocessTransport(loop, protocol, args, shell, i, o, e, 0)"),
    has("asyncio.unix_events._UnixDefaultEventLoopPolicy()", "_watcher", before=(3, 14)),
    has("concurrent.futures.ThreadPoolExecutor", "_threads"),
    has("concurrent.futures.thread", "_global_shutdown_lock", "_shutdown", "_threads_queues"),
    has("ctypes.pythonapi", "_PyBytes_Resize", "_PyObject_GetMethod", "_PyType_Lookup"),
    has("linecache", "_register_code(code, source, filename)", since=(3, 14)),
    has("os", "_exit(status)"),
    has("runpy", "_run_module_as_main(name)", "_run_module_as_main(name, alter_argv=False)"),
    has("ssl.SSLObject", "_sslobj"),
    has("sys", "_current_frames()"),
    has("sys", "_is_gil_enabled()", since=(3, 13)),
    has("weakref.WeakValueDictionary()", "data"),
    # What is borrowed from asyncio's selector loop, and how we call it.
    has(LOOP, "_make_subprocess_transport", "_child_watcher_callback", "_sock_write_done"),
    has(LOOP, "_sock_recv", "_sock_recv_into", "_sock_recvfrom", "_sock_recvfrom_into"),
    has(LOOP, "_sock_sendall", "_sock_sendto", "_sock_connect", "_sock_connect_cb", "_sock_accept"),
    has(LOOP, "_check_sendfile_params(sock, file, 0, 1)", "_sock_sendfile_update_filepos"),
    # What asyncio asks of our loop, transports and handles.
    asks("asyncio.base_events", "_closed", "_debug", "_stopping", "_task_factory", "_thread_id"),
    asks("asyncio.base_events", "_current_handle", "_write_to_self", "_start_serving"),
    asks("asyncio.base_events", "_make_socket_transport", "_make_ssl_transport"),
    asks("asyncio.base_events", "_make_datagram_transport", "_make_subprocess_transport"),
    asks("asyncio.base_events", "_make_read_pipe_transport", "_make_write_pipe_transport"),
    asks("asyncio.base_events", "_sendfile_native", "_sock_sendfile_native", "_stop_serving"),
    asks("asyncio.base_events", "_sendfile_compatible", "_start_tls_compatible"),
    asks("asyncio.base_events", "_FlowControlMixin", "_loop", "_protocol_paused", "_callback"),
    asks("asyncio.events", "_timer_handle_cancelled", "_args", "_callback", "_cancelled", "_when"),
    asks("asyncio.selector_events", "_ensure_fd_no_transport", "_add_reader", "_remove_reader"),
    asks("asyncio.selector_events", "_add_writer", "_remove_writer", "_transports", "_selector"),
    asks("asyncio.sslproto", "_force_close"),
    asks("test.test_asyncio.test_ssl", "_ssl_protocol", "_test__append_write_backlog"),
    asks("test.test_asyncio.test_server_context", "_app_reading_paused", since=(3, 15)),
    asks("asyncio.unix_events", "_unix_server_sockets", since=(3, 13)),
    # What is ours under asyncio's name: no asyncio code comes to look, but tests and tools do.
    has(LOOP, "_add_callback", "_add_callback_signalsafe", "_handle_signal", "_signal_handlers"),
    has(STREAM, "_sock", "_sock_fd", "_make_empty_waiter", "_reset_empty_waiter"),
]

TWINS = {  # asyncio's own classes for ours
    "Loop": asyncio.SelectorEventLoop,
    "SignalHandlers": asyncio.SelectorEventLoop,
    "StreamTransport": selector_events._SelectorSocketTransport,
    "DatagramTransport": selector_events._SelectorDatagramTransport,
    "ReadPipeTransport": unix_events._UnixReadPipeTransport,
    "WritePipeTransport": unix_events._UnixWritePipeTransport,
    "TlsTransport": sslproto._SSLProtocolTransport,
    "Handle": events.Handle,
    "TimerHandle": events.TimerHandle,
}

REPEATED = {  # asyncio's numbers that Rust writes down once more
    ("transport/listener.rs", "RETRY_DELAY"): constants.ACCEPT_RETRY_DELAY,
    ("transport/datagram/writing.rs", "WARN_FROM"): constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES,
    ("transport/pipe_write.rs", "WARN_FROM"): constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES,
    ("transport/tls/handshake.rs", "READ_HIGH"): constants.FLOW_CONTROL_HIGH_WATER_SSL_READ,
    ("transport/tls/handshake.rs", "WRITE_HIGH"): constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE,
    ("transport/tls/writing.rs", "WARN_FROM"): constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES,
    ("transport/writing.rs", "WARN_FROM"): constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES,
}
