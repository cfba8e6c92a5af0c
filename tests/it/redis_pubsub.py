"""Publish and subscribe with redis-py through Sluice. Prints ok, or fails.

usage: redis_pubsub.py PORT
"""

import sys
import threading
import time

import redis


def wait_for(pubsub, kind, seconds=10):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        message = pubsub.get_message(timeout=0.1)
        if message is not None:
            assert message["type"] == kind, (kind, message)
            return message
    raise AssertionError(f"no {kind}")


def main(port):
    client = redis.Redis(port=port, decode_responses=True, socket_timeout=10)
    pubsub = client.pubsub()
    pubsub.subscribe("news", "weather")
    assert [wait_for(pubsub, "subscribe")["data"] for _ in range(2)] == [1, 2]
    pubsub.psubscribe("n*")
    assert wait_for(pubsub, "psubscribe")["data"] == 3
    assert client.publish("news", "hello") == 2
    got = {wait_for_any(pubsub)["type"] for _ in range(2)}
    assert got == {"message", "pmessage"}, got
    assert sorted(client.pubsub_channels()) == ["news", "weather"]
    assert client.pubsub_numsub("news", "none") == [("news", 1), ("none", 0)]
    assert client.pubsub_numpat() == 1
    pubsub.ping("are you there")
    assert wait_for(pubsub, "pong")["data"] == "are you there"
    pubsub.unsubscribe()
    assert sorted(wait_for(pubsub, "unsubscribe")["channel"] for _ in range(2)) == ["news", "weather"]
    pubsub.punsubscribe()
    assert wait_for(pubsub, "punsubscribe")["data"] == 0
    assert client.publish("news", "nobody") == 0
    pubsub.close()

    # Handlers on a thread of their own, as Celery and channels use it.
    heard = []
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(**{"work": lambda message: heard.append(message["data"])})
    thread = pubsub.run_in_thread(sleep_time=0.01)
    until = time.monotonic() + 10
    while client.publish("work", "0") != 1:
        assert time.monotonic() < until
    for n in range(1, 200):
        assert client.publish("work", str(n)) == 1
    while len(heard) < 200:
        assert time.monotonic() < until, len(heard)
        time.sleep(0.01)
    thread.stop()
    thread.join()
    assert heard == [str(n) for n in range(200)], heard[:20]

    # Many at once.
    failures = []

    def listen(who):
        try:
            mine = client.pubsub()
            mine.subscribe("all", f"own:{who}")
            [wait_for(mine, "subscribe") for _ in range(2)]
            client.publish(f"own:{who}", who)
            while (message := wait_for_any(mine))["channel"] != f"own:{who}":
                pass
            assert message["data"] == str(who)
            mine.close()
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=listen, args=(who,)) for who in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def wait_for_any(pubsub, seconds=10):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        message = pubsub.get_message(timeout=0.1)
        if message is not None:
            return message
    raise AssertionError("nothing came")


main(int(sys.argv[1]))
print("ok")
