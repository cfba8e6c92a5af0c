"""redis-py in RESP3 through Sluice, with and without its cache on the client's side. Prints ok, or
fails.

usage: redis_resp3.py PORT
"""

import sys
import time

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection


def main(port):
    options = {"port": port, "protocol": 3, "decode_responses": True, "socket_timeout": 10}
    client = redis.Redis(**options)
    assert client.ping()
    assert client.hset("hash", mapping={"x": "1", "y": "2"}) == 2
    assert client.hgetall("hash") == {"x": "1", "y": "2"}
    assert client.zadd("z", {"one": 1, "two": 2}) == 2
    assert client.zrange("z", 0, -1, withscores=True) == [["one", 1.0], ["two", 2.0]]
    assert client.sadd("s", "a") == 1 and client.smembers("s") == {"a"}
    assert client.config_get("save") == {"save": ""}
    assert client.mget("none", "none2") == [None, None]
    assert client.info()["redis_version"]
    assert client.client_info()["resp"] == "3"
    assert client.command_getkeys("GET", "k") == ["k"]
    pipe = client.pipeline(transaction=False)
    for n in range(500):
        pipe.set(f"p{n}", n).get(f"p{n}").get("none")
    assert pipe.execute() == [x for n in range(500) for x in (True, str(n), None)]

    # It asks for Redis 7.4 without needing anything of it.
    CacheProxyConnection.MIN_ALLOWED_VERSION = "7.0.0"
    cached = redis.Redis(cache_config=CacheConfig(), **options)
    client.set("c", "old")
    assert cached.get("c") == "old" and cached.get("c") == "old"
    assert cached.get_cache().size == 1
    client.set("c", "new")
    deadline = time.monotonic() + 10
    while cached.get("c") != "new":
        assert time.monotonic() < deadline, "the cache was not told"


main(int(sys.argv[1]))
print("ok")
