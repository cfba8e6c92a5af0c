//! What only Redis has: users, routes by key, and the shard of requests without one.

use super::{LISTENER, SHARDS, each, file, good};

/// A Redis listener with these keys.
fn redis_with(keys: &str) -> String {
    file(&format!("{{ bind: 127.0.0.1:1, protocol: redis, {keys} }}"), SHARDS)
}

#[test]
fn users_and_routes_of_redis_are_checked() {
    let users = |users: &str| redis_with(&format!("cluster: c, redis: {{ users: [{users}] }}"));
    let routes = |routes: &str| redis_with(&format!("routes: [{routes}]"));
    each(&[
        (users("{ password: p }"), "listeners[0].redis.users[0]: `name` is missing"),
        (users("{ name: a }"), "listeners[0].redis.users[0].name: a user needs `password`"),
        (users("{ name: a b, password: p }"), "listeners[0].redis.users[0].name: 'a b' is not a"),
        (
            users("{ name: a, password: p }, { name: a, password: q }"),
            "listeners[0].redis.users[1].name: there is a user 'a' already",
        ),
        (
            users("{ name: a, password: p, commands: [\"@raed\"] }"),
            "listeners[0].redis.users[0].commands[0]: there is no category '@raed'; did you mean '@read'?",
        ),
        (
            users("{ name: a, password: p, cluster: d }"),
            "listeners[0].redis.users[0].cluster: there is no cluster 'd'",
        ),
        (
            redis_with("cluster: c, redis: { password: p, users: [{ name: default }] }"),
            "listeners[0].redis.users[0].name: `redis.password` is that user's",
        ),
        (
            redis_with("cluster: c, redis: { password: p, auth: passthrough }"),
            "listeners[0].redis.auth: with passthrough the backends know the users",
        ),
        (
            routes("{ match: { key_prefix: a }, cluster: c }"),
            "listeners[0].routes: a route without `match` is missing",
        ),
        (
            routes("{ cluster: c }, { match: { path_prefix: /a }, cluster: c }"),
            "listeners[0].routes[1]: only an http listener matches",
        ),
        (
            routes(
                "{ match: { key_prefix: a }, cluster: c }, { cluster: c }, { match: { key_prefix: a }, cluster: c }",
            ),
            "listeners[0].routes[2]: another route has that key_prefix",
        ),
    ]);
    good(&routes("{ cluster: c }, { match: { key_prefix: a }, cluster: c, strip: true }"));
    let shard = |name: &str| {
        file(LISTENER, &format!("shards: [{{ primary: a:1 }}], redis: {{ keyless_shard: {name} }}"))
    };
    each(&[(
        shard("s1"),
        "clusters.c.redis.keyless_shard: there is no shard 's1'; did you mean 's0'?",
    )]);
    assert_eq!(good(&shard("s0")).clusters[0].keyless, 0);
}
