//! The name, kind and help text of every metric, in one place. Not their values.
//!
//! `process_*` keep the names that every Prometheus client library gives them, so that ready-made
//! dashboards work; all others begin with `sluice_`.

/// What a metric's value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric as the text format announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Name = Name { name: $name, help: $help, kind: Kind::$kind };
        )*

        /// Every metric, in the order of this file.
        pub const ALL: &[Name] = &[$($constant),*];
    };
}

metrics! {
    BUILD_INFO Gauge "sluice_build_info" "Always 1; the label says which version runs.";
    STATE Gauge "sluice_state" "1 for the stage that the process is in, 0 for the others.";
    CONFIG_RELOAD_SUCCESSFUL Gauge "sluice_config_last_reload_successful"
        "Whether the newest configuration was taken.";
    CONFIG_RELOAD_TIME Gauge "sluice_config_last_reload_success_timestamp_seconds"
        "When the configuration in force was taken, as a unix time.";
    PROCESS_START Gauge "process_start_time_seconds" "When the process started, as a unix time.";
    PROCESS_CPU Counter "process_cpu_seconds_total" "User and system CPU time spent.";
    PROCESS_MEMORY Gauge "process_resident_memory_bytes" "Resident memory.";
    PROCESS_FDS Gauge "process_open_fds" "Open file descriptors.";
    PROCESS_MAX_FDS Gauge "process_max_fds" "The soft limit of open file descriptors.";
    WORKER_CLIENTS Gauge "sluice_worker_clients" "Clients that a worker serves now.";
    WORKER_TURNS Counter "sluice_worker_turns_total" "Turns of a worker's heartbeat.";
    BUFFERED Gauge "sluice_buffered_bytes" "Bytes held in a worker's buffers.";
    PANICS Counter "sluice_panics_total" "Sessions ended by a fault of ours.";
    EVENTS Counter "sluice_events_total" "Transitions of backends.";
    SERIES_DROPPED Gauge "sluice_metrics_series_dropped"
        "Series left out of this page because it has a limit.";
    LISTENER_ACCEPTED Counter "sluice_listener_connections_accepted_total"
        "Connections accepted.";
    LISTENER_REJECTED Counter "sluice_listener_connections_rejected_total"
        "Clients refused: for what they sent, for a wrong password, or by a limit.";
    LISTENER_ACTIVE Gauge "sluice_listener_connections_active" "Connections open now.";
    HTTP_REFUSALS Counter "sluice_http_refusals_total"
        "Requests answered by us, by the reason that X-Sluice-Error told.";
    ACCESS_LOG_DROPPED Counter "sluice_access_log_dropped_total"
        "Lines of the access log that could not be written.";
    LISTENER_BYTES Counter "sluice_listener_bytes_total"
        "Bytes read from clients (in) and written to them (out).";
    LISTENER_TLS_HANDSHAKES Counter "sluice_listener_tls_handshakes_total"
        "TLS handshakes with clients, by result.";
    TLS_NOT_AFTER Gauge "sluice_tls_certificate_not_after_timestamp_seconds"
        "When a listener's certificate expires, as a unix time.";
    TLS_RELOADS Counter "sluice_tls_reloads_total"
        "Changed files of certificates and keys that were read: taken, or found to be of no use.";
    REQUESTS Counter "sluice_requests_total"
        "Requests answered: ok, with an error of a backend, with an error of ours.";
    REQUEST_DURATION Histogram "sluice_request_duration_seconds"
        "From the last byte of a request to its reply being ready.";
    REQUESTS_IN_FLIGHT Gauge "sluice_requests_in_flight" "Requests sent and not answered.";
    RETRIES Counter "sluice_retries_total" "Requests sent once more, by reason.";
    HTTP_RESPONSES Counter "sluice_http_responses_total"
        "Replies of HTTP, by the class of their status.";
    STICKY Counter "sluice_sticky_total"
        "Requests of sticky sessions by cookie: that stayed (kept), began one (new), had to move (moved).";
    REQUESTS_OVERLOADED Counter "sluice_requests_overloaded_total"
        "Requests refused because every backend was at its limit.";
    FAILOVER_WAITS Counter "sluice_failover_waits_total"
        "Requests held because their shard had no primary.";
    QUEUE_LENGTH Gauge "sluice_queue_length" "Requests that wait for a backend that has room.";
    QUEUE_WAIT Histogram "sluice_queue_wait_seconds"
        "How long requests waited for room, those that got none included.";
    REDIS_LOCAL Counter "sluice_redis_local_requests_total"
        "Requests answered without a backend.";
    REDIS_SPLIT Counter "sluice_redis_split_requests_total"
        "Requests split over several shards.";
    REDIS_STRAY Counter "sluice_redis_stray_replies_total"
        "Replies that nobody asked for; each closed its connection.";
    REDIS_PUSHES Counter "sluice_redis_stray_pushes_total"
        "Pushes of RESP3 on shared connections, which are for nobody; dropped.";
    REDIS_SUBSCRIBERS Gauge "sluice_redis_subscribers"
        "Clients that have subscribed to something.";
    REDIS_SUBSCRIPTIONS Gauge "sluice_redis_subscriptions"
        "What clients have subscribed to, by kind; each client's is counted.";
    REDIS_TOPICS Gauge "sluice_redis_topics"
        "Channels and patterns that workers have subscribed to at the servers.";
    REDIS_MESSAGES Counter "sluice_redis_messages_total"
        "Messages passed on to subscribers; each client's is counted.";
    REDIS_SUBSCRIBERS_DROPPED Counter "sluice_redis_subscribers_dropped_total"
        "Subscribers closed because they did not read what they were sent.";
    REDIS_RESUBSCRIPTIONS Counter "sluice_redis_resubscriptions_total"
        "Channels and patterns subscribed to again after a connection was lost.";
    REDIS_SUBSCRIBER_GAP Counter "sluice_redis_subscriber_gap_seconds_total"
        "How long messages may have been missed, from a lost connection to the last confirmation.";
    REDIS_COMMANDS Counter "sluice_redis_commands_total"
        "Requests by command, as named by our table; unknown ones together.";
    REDIS_COALESCED Counter "sluice_redis_coalesced_requests_total"
        "GETs that waited for the reply to an equal one instead of being sent.";
    REDIS_BIG Counter "sluice_redis_big_total"
        "Requests and replies of at least redis.big bytes, by command and direction.";
    REDIS_HOT Gauge "sluice_redis_hot_key_requests_per_second"
        "Requests per second that name the hottest keys, sampled, by their rank; SLUICE HOTKEYS names them.";
    REDIS_SLOW Counter "sluice_redis_slow_requests_total"
        "Requests that took redis.slowlog.threshold or longer.";
    BACKEND_UP Gauge "sluice_backend_up" "1 when it takes requests of its role.";
    BACKEND_STATE Gauge "sluice_backend_state" "1 for the state it is in, 0 for the others.";
    BACKEND_ROLE Gauge "sluice_backend_role" "1 for the role it has, 0 for the others.";
    BACKEND_ADMIN Gauge "sluice_backend_admin"
        "1 for what the operator wants of it (ready, drain, disabled), 0 for the others.";
    BACKEND_WEIGHT Gauge "sluice_backend_weight" "Its weight, as configured or set since.";
    BACKEND_EFFECTIVE_WEIGHT Gauge "sluice_backend_effective_weight"
        "Its weight, or the part of it that it has while it is warming.";
    BACKEND_CONNECTIONS Gauge "sluice_backend_connections" "Connections of ours open to it.";
    BACKEND_IDLE Gauge "sluice_backend_connections_idle"
        "Connections of HTTP/1.1 that are kept for the next request.";
    BACKEND_LEASED Gauge "sluice_backend_connections_leased"
        "Connections of redis that one client has for itself now.";
    BACKEND_LEASE_WAITS Counter "sluice_backend_lease_waits_total"
        "Clients that had to wait for a connection of their own.";
    BACKEND_LEASE_REFUSALS Counter "sluice_backend_lease_refusals_total"
        "Clients that waited for one and got none.";
    BACKEND_CONNECTS Counter "sluice_backend_connects_total" "Attempts to connect, by result.";
    BACKEND_REQUESTS Counter "sluice_backend_requests_total" "Requests, by result.";
    BACKEND_ACCESS Counter "sluice_backend_requests_by_access_total" "Requests, by access.";
    BACKEND_IN_FLIGHT Gauge "sluice_backend_in_flight" "Requests sent to it and not answered.";
    BACKEND_BYTES Counter "sluice_backend_bytes_total"
        "Bytes read from it (in) and written to it (out).";
    BACKEND_STICKY Counter "sluice_backend_sticky_total"
        "Sticky sessions that began here (new), came from another backend or left for one, and requests of those that stayed (kept).";
    BACKEND_CHECKS Counter "sluice_backend_checks_total" "Probes, by result.";
    BACKEND_CHECK_DURATION Histogram "sluice_backend_check_duration_seconds"
        "How long probes took, failed ones included.";
    BACKEND_CHANGES Counter "sluice_backend_state_changes_total"
        "Transitions, by the state they led to.";
    BACKEND_EJECTIONS Counter "sluice_backend_ejections_total" "Passive ejections, by reason.";
    BACKEND_LAG_BYTES Gauge "sluice_backend_replication_lag_bytes"
        "Bytes of the replication stream behind the primary, when known.";
    BACKEND_LAG_SECONDS Gauge "sluice_backend_replication_lag_seconds"
        "Age of the newest probe of the primary whose offset the replica has reached, when known.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let unique: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(unique.len(), ALL.len());
        for metric in ALL {
            let counter = metric.kind == Kind::Counter;
            assert_eq!(metric.name.ends_with("_total"), counter, "{}", metric.name);
            assert!(metric.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            assert!(metric.name.starts_with("sluice_") || metric.name.starts_with("process_"));
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
