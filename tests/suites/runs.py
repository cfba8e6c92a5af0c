"""What can be run: each run's suite, servers and Sluice. Not how; that is stack.py and one.py."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    suite: str  # "tcl" or "py"
    front: str  # "direct" or "cluster" (a server answers), or Sluice's upstream mode
    shards: int = 1
    sliced: bool = False  # the first bytes of every read cut into 1 to 3, before and behind Sluice
    protocol: int = 2  # of redis-py
    baseline: str = ""  # the run that says which names pass at all
    like: str = ""  # a run whose known differences may be seen here too

    @property
    def cluster_mode(self):
        """Whether Redis's tests keep to what a cluster allows: one database, keys of one slot."""
        return self.shards > 1 or self.front == "cluster"


RUNS = {
    "direct": Run("tcl", "direct"),
    "direct-cluster": Run("tcl", "cluster"),
    "direct-sliced": Run("tcl", "direct", sliced=True),
    "direct-py2": Run("py", "direct"),
    "direct-py3": Run("py", "direct", protocol=3),
    "tcl-dedicated": Run("tcl", "dedicated", baseline="direct"),
    "tcl-shared": Run("tcl", "shared", baseline="direct"),
    "tcl-cluster": Run("tcl", "shared", shards=3, baseline="direct-cluster"),
    "tcl-sliced": Run("tcl", "shared", sliced=True, baseline="direct-sliced", like="tcl-shared"),
    "tcl-dedicated-sliced": Run(
        "tcl", "dedicated", sliced=True, baseline="direct-sliced", like="tcl-dedicated"
    ),
    "py2": Run("py", "shared", baseline="direct-py2"),
    "py3": Run("py", "shared", protocol=3, baseline="direct-py3"),
}
SLICED = ["tcl-sliced", "tcl-dedicated-sliced"]
ALL = ["tcl-dedicated", "tcl-shared", "tcl-cluster", "py2", "py3"]

# A test that sets a password on the servers through Sluice and cannot take it off again: Sluice has
# none, so its next connection is refused, and so is each later test. It counts as different.
POISON = ["tests/test_commands.py::TestRedisCommands::test_auth"]

# Tests that fail through Sluice over several shards and leave the connection, or the unit, so that
# none after them can pass. They are left out there, and count as different.
POISON_TCL = [
    "DISCARD should not fail during OOM",  # r stays inside MULTI
    "EXEC and script timeout",  # these two leave a script running
    "just EXEC and script timeout",
    "Test both active and passive expires are skipped during client pause",  # leaves all paused
    "Server is able to evacuate enough keys when num of keys surpasses limit by more than defined initial effort",
]

# Tests that need two clients' requests to arrive in the order in which they were sent, and wait for
# good when they do not: slicers decide that anew for each connection. Left out of the sliced runs.
RACES = ["BRPOPLPUSH with multiple blocked clients"]

# Commands refused by default that the suites need even to start, or test.
ALLOW = """DEBUG MONITOR CONFIG|SET CONFIG|RESETSTAT CONFIG|REWRITE ACL SAVE BGSAVE BGREWRITEAOF SWAPDB
    REPLICAOF SLAVEOF FAILOVER MODULE MIGRATE PFDEBUG PFSELFTEST SHUTDOWN RESTORE-ASKING CLUSTER LATENCY SCRIPT FUNCTION
    CLIENT SYNC PSYNC REPLCONF""".split()


def config(run, listen, servers):
    """Sluice's file. Timeouts are wide: the suites hold servers still for seconds on purpose."""
    shards = ", ".join(f"{{ primary: '127.0.0.1:{port}' }}" for port in servers)
    allow = ", ".join(f'"{name}"' for name in ALLOW)
    mode = f"upstream: {{ mode: {run.front} }}" if run.front != "shared" else ""
    return f"""
workers: 1
listeners:
  - name: suite
    bind: 127.0.0.1:{listen}
    protocol: redis
    cluster: suite
    redis: {{ allow: [{allow}], client_output_limit: 1GiB }}
clusters:
  suite:
    shards: [{shards}]
    check: {{ interval: 5s, timeout: 4s, fall: 10 }}
    {mode}
"""


# What `quick` runs: units that take seconds and depend little on the clock, of every family.
QUICK_TCL = """unit/protocol unit/quit unit/keyspace unit/functions unit/bitfield unit/bitops unit/sort
    unit/type/incr unit/type/string unit/type/hash unit/type/set unit/type/zset""".split()
QUICK = {
    "tcl-shared": QUICK_TCL,
    "tcl-dedicated": "unit/pubsub unit/scripting unit/tracking unit/introspection-2".split(),
    "tcl-cluster": "unit/keyspace unit/bitops unit/type/incr unit/type/hash".split(),
    "py2": ["tests/test_pipeline.py", "tests/test_pubsub.py", "tests/test_scripting.py"],
    "py3": ["tests/test_commands.py", "tests/test_asyncio/test_pipeline.py"],
}
