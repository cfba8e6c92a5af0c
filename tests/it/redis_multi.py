"""Transactions of redis-py through Sluice, as an application would use them. Prints ok, or fails.

usage: redis_multi.py PORT
"""

import sys
import threading

import redis


def main(port):
    client = redis.Redis(port=port, decode_responses=True, socket_timeout=10)
    # Its pipelines are transactions unless told otherwise.
    pipe = client.pipeline()
    pipe.set("{t}a", 1).incr("{t}a").get("{t}a").hset("{t}h", mapping={"x": 1}).hgetall("{t}h")
    assert pipe.execute() == [True, 2, "2", 1, {"x": "1"}]
    assert client.pipeline().execute() == []

    # An error of one request leaves the others executed.
    pipe = client.pipeline()
    pipe.set("{t}c", "a").lpush("{t}c", 1).set("{t}d", "b")
    replies = pipe.execute(raise_on_error=False)
    assert replies[0] is True and replies[2] is True
    assert isinstance(replies[1], redis.ResponseError), replies
    # One that is wrong while it is queued leaves none.
    pipe = client.pipeline()
    pipe.set("{t}e", 1).zrem("{t}b").set("{t}f", 2)
    try:
        pipe.execute()
        raise AssertionError("it was taken")
    except redis.ResponseError as error:
        assert "Command # 2 (ZREM {t}b)" in str(error), error
    assert client.exists("{t}e", "{t}f") == 0

    pipe = client.pipeline()
    pipe.watch("{t}a")
    client.set("{t}a", "theirs")
    pipe.multi()
    pipe.set("{t}a", "mine")
    try:
        pipe.execute()
        raise AssertionError("the change was not seen")
    except redis.WatchError:
        pass
    assert client.get("{t}a") == "theirs"

    client.set("{t}n", 0)

    def step(pipe):
        now = int(pipe.get("{t}n"))
        pipe.multi()
        pipe.set("{t}n", now + 1)

    failures = []

    def work():
        try:
            for _ in range(30):
                assert client.transaction(step, "{t}n") == [True]
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert client.get("{t}n") == "120"

    pipe = client.pipeline()
    for n in range(10_000):
        pipe.set("{t}p", n).get("{t}p")
    assert pipe.execute() == [x for n in range(10_000) for x in (True, str(n))]

    with client.pipeline() as pipe:
        pipe.ping().echo("x")
        assert pipe.execute() == [True, "x"]
    print("ok")


main(int(sys.argv[1]))
