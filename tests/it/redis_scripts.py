"""What applications do with scripts, by redis-py, through the port given."""

import sys

import redis
from redis.exceptions import NoScriptError, ResponseError

r = redis.Redis(host="127.0.0.1", port=int(sys.argv[1]), decode_responses=True)
add = r.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
for n in range(20):
    assert add(keys=[f"n{n}"], args=[n]) == n
with r.pipeline(transaction=False) as pipe:
    for n in range(20):
        add(keys=[f"n{n}"], args=[1], client=pipe)
    assert pipe.execute() == [n + 1 for n in range(20)]
assert r.script_exists(add.sha, "0" * 40) == [True, False]
r.script_flush()
assert r.script_exists(add.sha) == [False]
try:
    r.evalsha(add.sha, 1, "n0", 1)
    raise AssertionError("a flushed script ran")
except NoScriptError:
    pass
assert add(keys=["n0"], args=[5]) == 6
assert r.eval("return {KEYS[1], ARGV[1], 3}", 1, "a", "b") == ["a", "b", 3]
assert r.eval("return 1", 0) == 1
try:
    r.eval("return redis.call('incr', KEYS[1], 'too many')", 1, "a")
    raise AssertionError("an error was none")
except ResponseError:
    pass
lock = r.lock("lock", timeout=10)
assert lock.acquire(blocking=False) and lock.owned()
lock.extend(5)
lock.release()
code = """#!lua name=mylib
redis.register_function('twice', function(keys, args) return args[1] * 2 end)"""
assert r.function_load(code) == "mylib"
assert r.fcall("twice", 1, "k", 21) == 42
assert [lib[1] for lib in r.function_list()] == ["mylib"]
assert r.function_load(code, replace=True) == "mylib"
dump = redis.Redis(host="127.0.0.1", port=int(sys.argv[1])).function_dump()
assert r.function_delete("mylib")
assert redis.Redis(host="127.0.0.1", port=int(sys.argv[1])).function_restore(dump)
assert r.fcall("twice", 0, 4) == 8
assert r.function_stats()
assert r.function_flush()
print("ok")
