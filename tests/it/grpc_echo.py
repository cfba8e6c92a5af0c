"""gRPC without generated code: grpc_echo.py serve|talk PORT. Four shapes of call, both statuses."""

import sys
from concurrent import futures

import grpc

PORT = sys.argv[2]


def unary(request, context):
    if request == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    context.set_trailing_metadata((("x-trailer", "t"),))
    return request


def count(request, _context):
    for i in range(int(request)):
        yield b"%d" % i


def total(requests, _context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, _context):
    for request in requests:
        yield request


def serve():
    handlers = grpc.method_handlers_generic_handler(
        "Echo",
        {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Count": grpc.unary_stream_rpc_method_handler(count),
            "Total": grpc.stream_unary_rpc_method_handler(total),
            "Both": grpc.stream_stream_rpc_method_handler(both),
        },
    )
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
    server.add_generic_rpc_handlers((handlers,))
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    server.start()
    server.wait_for_termination()


def talk():
    channel = grpc.insecure_channel(f"127.0.0.1:{PORT}")
    limit = 20
    call = channel.unary_unary("/Echo/Unary")
    reply, details = call.with_call(b"hello", timeout=limit)
    assert reply == b"hello", reply
    assert ("x-trailer", "t") in [tuple(pair) for pair in details.trailing_metadata()]
    big = b"x" * 2_000_000
    assert call(big, timeout=limit) == big
    try:
        call(b"fail", timeout=limit)
        raise AssertionError("it did not fail")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        assert error.details() == "no such thing", error
    try:
        channel.unary_unary("/Echo/Nothing")(b"", timeout=limit)
        raise AssertionError("it did not fail")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    replies = list(channel.unary_stream("/Echo/Count")(b"1000", timeout=limit))
    assert replies == [b"%d" % i for i in range(1000)]
    assert channel.stream_unary("/Echo/Total")(iter([big] * 5), timeout=limit) == b"10000000"

    # Each message is sent when the one before has come back.
    ready = futures.Future()
    box = [ready]

    def pings():
        for i in range(100):
            yield b"%d" % i
            box[0].result(limit)
            box[0] = futures.Future()

    got = 0
    for reply in channel.stream_stream("/Echo/Both")(pings(), timeout=limit):
        assert reply == b"%d" % got, reply
        got += 1
        box[0].set_result(None)
    assert got == 100, got
    waiting = [call.future(b"%d" % i, timeout=limit) for i in range(100)]
    assert [one.result() for one in waiting] == [b"%d" % i for i in range(100)]
    print("ok")


serve() if sys.argv[1] == "serve" else talk()
