"""redis-py through Sluice, as an application would use it. Prints ok, or fails.

usage: redis_py.py PORT
"""

import sys
import threading

import redis


def main(port):
    client = redis.Redis(port=port, decode_responses=True, socket_timeout=10)
    assert client.ping()
    assert client.set("a", 1) and client.get("a") == "1"
    assert client.incr("a") == 2
    assert client.mset({f"m{n}": n for n in range(50)})
    assert client.mget([f"m{n}" for n in range(50)] + ["none"]) == [str(n) for n in range(50)] + [None]
    assert client.hset("h", mapping={"x": "1", "y": "2"}) == 2
    assert client.hgetall("h") == {"x": "1", "y": "2"}
    assert client.zadd("z", {"one": 1, "two": 2}) == 2
    assert client.zrange("z", 0, -1, withscores=True) == [("one", 1.0), ("two", 2.0)]
    assert client.delete(*[f"m{n}" for n in range(50)]) == 50
    assert client.info()["redis_version"]
    assert client.dbsize() == 3

    # A pipeline that is no transaction; redis-py puts an error in its place.
    pipe = client.pipeline(transaction=False)
    for n in range(1000):
        pipe.set(f"p{n}", f"value {n}").get(f"p{n}")
    pipe.lpush("a", "wrong type").mget("p1", "p2")
    replies = pipe.execute(raise_on_error=False)
    assert replies[:-2] == [x for n in range(1000) for x in (True, f"value {n}")]
    assert isinstance(replies[-2], redis.ResponseError), replies[-2]
    assert replies[-1] == ["value 1", "value 2"]
    assert sorted(client.scan_iter("p*", count=100)) == sorted(f"p{n}" for n in range(1000))

    # Many threads share one pool of connections; each must get its own replies.
    failures = []

    def work(who):
        try:
            for n in range(100):
                pipe = client.pipeline(transaction=False)
                pipe.set(f"t{who}", n).get(f"t{who}").echo(f"{who}-{n}")
                assert pipe.execute() == [True, str(n), f"{who}-{n}"]
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert client.flushall()
    assert client.dbsize() == 0


main(int(sys.argv[1]))
print("ok")
