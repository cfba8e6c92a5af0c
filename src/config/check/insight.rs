//! What a cluster says of Redis requests beside where they go: its slow log, what counts as big, and
//! whether equal GETs are asked once. Not its commands: see `cluster`.

use crate::config::{
    RedisCluster,
    section::{Reader, Section},
};

/// Of a cluster and its `redis`.
pub(super) fn cluster(
    reader: &mut Reader<'_, '_>,
    cluster: &Section<'_>,
    redis: &Section<'_>,
) -> RedisCluster {
    let slowlog = reader.section(redis, "slowlog");
    RedisCluster {
        slow: reader.duration(&slowlog, "threshold"),
        slow_entries: reader.integer(&slowlog, "entries").unwrap_or_default(),
        big: reader.size(redis, "big").unwrap_or_default(),
        redact: reader.switch(redis, "redact"),
        coalesce: reader.switch(cluster, "coalesce"),
    }
}
